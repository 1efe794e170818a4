/**
 * The storyboard script as plain text, read by the same rule as nodes/kling/storyboard.py:
 * a shot begins with its length in brackets at the start of a line, and lasts to the next one.
 */

export const SHOT = { low: 3, high: 15, start: 5 };
export const TOTAL = { low: 3, high: 15 };

// Not /m: there JavaScript also sees a line start after U+2028, which Python does not.
const SHOT_START = /(?<![^\n])[^\S\n]*\[\s*(\d+(?:\.\d+)?)\s*s\s*\]/gi;

/**
 * Reads a script. Never fails: a shot the rules refuse is still a shot, see `problems`.
 * @param {string} script
 * @returns {{before: string, shots: {seconds: number, prompt: string}[]}} `before`: text ahead of the first shot
 */
export function parse(script) {
  const text = script.replace(/\r\n?/g, "\n");
  const starts = [...text.matchAll(SHOT_START)];
  const shots = starts.map((start, index) => ({
    seconds: Number(start[1]),
    prompt: text.slice(start.index + start[0].length, starts[index + 1]?.index).trim(),
  }));
  return { before: text.slice(0, starts[0]?.index).trim(), shots };
}

/** The script of a storyboard; `parse` reads it back. */
export function print({ before, shots }) {
  const lines = shots.map(({ seconds, prompt }) => `[${seconds}s] ${prompt.trim()}`.trimEnd());
  return (before ? [before, ...lines] : lines).join("\n");
}

export function totalSeconds(shots) {
  return shots.reduce((sum, shot) => sum + shot.seconds, 0);
}

/**
 * What a storyboard breaks, where it breaks it.
 * @returns {{shot?: number, field: "before"|"prompt"|"seconds"|"total", rule: string}[]}
 *   `rule` is the key of the message under `problem` in the locales; no `shot` means the whole.
 */
export function problems({ before, shots }) {
  const found = [];
  if (before) found.push({ field: "before", rule: "before" });
  shots.forEach(({ seconds, prompt }, shot) => {
    if (!Number.isInteger(seconds)) found.push({ shot, field: "seconds", rule: "whole" });
    else if (seconds < SHOT.low || seconds > SHOT.high) found.push({ shot, field: "seconds", rule: "length" });
    if (!prompt.trim()) found.push({ shot, field: "prompt", rule: "prompt" });
  });
  const total = totalSeconds(shots);
  if (!shots.length) found.push({ field: "total", rule: "empty" });
  else if (total < TOTAL.low || total > TOTAL.high) found.push({ field: "total", rule: "total" });
  return found;
}
