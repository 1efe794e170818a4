/** Calls of the pack's own routes. */

import { api } from "../../../scripts/api.js";

/**
 * @param {string} path under `/runcomfy_kling`
 * @param {string} [method]
 * @param {object} [body] sent as JSON
 * @returns {Promise<any>} the answer's JSON
 * @throws {Error} with the server's sentence, where it refused or did not answer
 */
export async function call(path, method = "GET", body = undefined) {
  const answer = await api.fetchApi(`/runcomfy_kling${path}`, {
    method,
    // Always JSON, also without a body: a page of another origin cannot send that unasked.
    headers: { "Content-Type": "application/json" },
    body: body && JSON.stringify(body),
  });
  const json = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(json.error ?? json.message ?? `HTTP ${answer.status}`);
  return json;
}
