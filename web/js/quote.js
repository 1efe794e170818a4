/** What the next run of a node costs, asked of the server as the node's inputs change. */

import { call } from "./server.js";
import { termsOf } from "./upstream.js";

const TASKS = { RunComfyKlingTextToVideo: "text-to-video", RunComfyKlingImageToVideo: "image-to-video" };
const FRESH_MS = 60_000;
const quotes = new Map();

/** A quote for these terms: `{usd, from, note}`, usd null where no price is known. */
async function quote(terms) {
  const key = new URLSearchParams(terms).toString();
  const known = quotes.get(key);
  if (known && performance.now() - known.asked < FRESH_MS) return known.answer;
  const answer = call(`/quote?${key}`);
  quotes.set(key, { asked: performance.now(), answer });
  return answer.catch(() => {
    quotes.delete(key);
    return { usd: null };
  });
}

/** What is spent already, by the state in which the ledger holds this very generation. */
const SPENT = { saved: "paid", submitted: "pending", submitting: "pending", uncertain: "uncertain" };

/** A key of SPENT, or null where the graph alone does not tell, or the ledger does not hold it. */
const stateOf = (node, prompt) =>
  call("/paid", "POST", { node, prompt }).then(
    ({ state }) => state,
    () => null,
  );

/**
 * What running a node costs, as keys and values under `cost` in the locales.
 * @returns {Promise<{kind: string, usd?: number, note?: string}>}
 */
export async function costOf(id, prompt) {
  const { rehearsal, ...terms } = termsOf(prompt, id);
  if (rehearsal) return { kind: "rehearsal" };
  const spent = rehearsal !== null && SPENT[await stateOf(id, prompt)];
  if (spent) return { kind: spent };
  if (Object.values(terms).includes(null)) return { kind: "unknown" };
  const { usd, from, note } = await quote({ task: TASKS[prompt[id].class_type], ...terms });
  return usd === null || usd === undefined ? { kind: "unknown" } : { kind: from ? "from" : "about", usd, note };
}
