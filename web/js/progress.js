/** The state of generations as nodes/progress.py sends it, and how it reads. */

const RUNNING = new Set(["preparing", "sharing", "submitting", "queued", "generating", "downloading"]);

export const isRunning = (state) => RUNNING.has(state.stage);

/**
 * Takes a state into the known ones, unless a newer one is there: an answer may arrive after an event.
 * @param {Map<string, object>} known states by execution id, such as `5:2`
 * @returns {boolean} whether it was taken
 */
export function merge(known, state) {
  if (known.get(state.node)?.time > state.time) return false;
  known.set(state.node, state);
  return true;
}

/** Whether a state belongs to the workflow on the canvas: node ids repeat between workflows. */
export const isOf = (state, workflowId) => !state.workflow || !workflowId || state.workflow === workflowId;

/** Seconds as `0:42`. */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

const megabytes = (bytes) => (bytes / 1e6).toFixed(1);

function title({ stage, queue_position: position, received, total, reused, rehearsal }) {
  if (stage === "queued" && position !== null) return ["queuedAt", { position }];
  if (stage === "downloading" && total) return ["percent", { percent: Math.floor((100 * received) / total) }];
  if (stage === "downloading" && received) return ["megabytes", { megabytes: megabytes(received) }];
  if (stage === "saved" && rehearsal) return ["rehearsed", {}];
  if (stage === "saved" && reused) return ["reused", {}];
  return [stage, {}];
}

/**
 * How a state reads after `since` more seconds.
 * @returns {{title: [string, object], time: [string, object]|null, share: number|null, tone: string}}
 *   texts as keys and values under `live` in the locales; `share` of the work done, 0 to 1
 */
export function describe(state, since) {
  const { stage, expected, received, total } = state;
  const waiting = stage === "queued" || stage === "generating";
  const elapsed = state.elapsed + since;
  let time = null;
  let share = null;
  if (waiting && expected) {
    time = ["elapsedOf", { elapsed: clock(elapsed), expected: clock(expected) }];
    // What such a clip usually takes is no promise: the bar nears its end and waits there.
    share = Math.min(elapsed / expected, 0.95);
  } else if (waiting) {
    time = ["elapsed", { elapsed: clock(elapsed) }];
  } else if (stage === "downloading" && total) {
    share = received / total;
  }
  const tone = isRunning(state) ? "running" : stage;
  return { title: title(state), time, share, tone };
}
