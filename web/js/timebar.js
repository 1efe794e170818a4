/** The time bar of a storyboard: where shots lie on it, and what dragging does to them. */

import { SHOT, TOTAL, totalSeconds } from "./script.js";

/**
 * Shots as stretches of the bar. The bar shows the longest video allowed, or all shots if they are longer.
 * @returns {{span: number, stretches: {from: number, to: number, left: number, width: number}[]}}
 *   `span`, `from`, `to` in seconds; `left` and `width` as fractions of the bar
 */
export function layout(shots) {
  const span = Math.max(TOTAL.high, totalSeconds(shots));
  let from = 0;
  const stretches = shots.map(({ seconds }) => {
    const stretch = { from, to: from + seconds, left: from / span, width: seconds / span };
    from = stretch.to;
    return stretch;
  });
  return { span, stretches };
}

const within = (value, low, high) => Math.min(Math.max(value, low), high);

/**
 * The shots after the border behind shot `index` was dragged by whole `seconds`.
 * An inner border moves seconds between its two shots; the last one changes the length of the video.
 */
export function moveBorder(shots, index, seconds) {
  const { seconds: length } = shots[index];
  const next = shots[index + 1]?.seconds;
  const low = [SHOT.low - length];
  const high = [SHOT.high - length];
  if (next === undefined) {
    high.push(TOTAL.high - totalSeconds(shots));
  } else {
    low.push(next - SHOT.high);
    high.push(next - SHOT.low);
  }
  // A border that already breaks a limit may stay where it is, but not go further.
  const by = within(seconds, Math.min(0, Math.max(...low)), Math.max(0, Math.min(...high)));
  const changes = { [index]: by, [index + 1]: -by };
  return shots.map((shot, i) => ({ ...shot, seconds: shot.seconds + (changes[i] ?? 0) }));
}

/** The shots with shot `from` moved to place `to`. */
export function reorder(shots, from, to) {
  const moved = shots.toSpliced(from, 1);
  moved.splice(within(to, 0, moved.length), 0, shots[from]);
  return moved;
}

/** The seconds a new shot gets: its usual length, or what the video has room for. */
export function newShotSeconds(shots) {
  return within(TOTAL.high - totalSeconds(shots), SHOT.low, SHOT.start);
}
