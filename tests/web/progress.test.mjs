import assert from "node:assert/strict";
import { test } from "node:test";

import { clock, describe, isOf, isRunning, merge } from "../../web/js/progress.js";

const state = (facts) => ({
  node: "5:2", stage: "preparing", request_id: null, queue_position: null, elapsed: 0, expected: null, received: null,
  total: null, cost_usd: null, rehearsal: false, reused: false, message: null, time: 1, ...facts,
});

test("an answer that arrives after a newer event changes nothing", () => {
  const known = new Map();
  assert.ok(merge(known, state({ stage: "saved", time: 2 })));
  assert.ok(!merge(known, state({ stage: "queued", time: 1 })));
  assert.equal(known.get("5:2").stage, "saved");
  assert.ok(merge(known, state({ stage: "queued", time: 3 })));
});

test("a state belongs to its own workflow, or to any where the id is not known", () => {
  assert.ok(isOf(state({ workflow: "a" }), "a"));
  assert.ok(!isOf(state({ workflow: "a" }), "b"));
  assert.ok(isOf(state({}), "b"));
  assert.ok(isOf(state({ workflow: "a" }), undefined));
});

test("a queue position is told when it is known", () => {
  assert.deepEqual(describe(state({ stage: "queued", queue_position: 0 }), 0).title, ["queuedAt", { position: 0 }]);
  assert.deepEqual(describe(state({ stage: "queued" }), 0).title, ["queued", {}]);
});

test("time goes on between two messages, and the bar never claims the end", () => {
  const running = state({ stage: "generating", elapsed: 40, expected: 130 });
  assert.deepEqual(describe(running, 2.4).time, ["elapsedOf", { elapsed: "0:42", expected: "2:10" }]);
  assert.equal(describe(running, 25).share, 0.5);
  assert.equal(describe(running, 9999).share, 0.95);
  assert.deepEqual(describe(state({ stage: "generating", elapsed: 61 }), 0).time, ["elapsed", { elapsed: "1:01" }]);
  assert.equal(describe(state({ stage: "generating", elapsed: 61 }), 0).share, null);
});

test("a download shows its share, or its size where the whole is not known", () => {
  const half = describe(state({ stage: "downloading", received: 3e6, total: 6e6 }), 0);
  assert.deepEqual(half.title, ["percent", { percent: 50 }]);
  assert.equal(half.share, 0.5);
  assert.deepEqual(describe(state({ stage: "downloading", received: 3.14e6 }), 0).title, ["megabytes", { megabytes: "3.1" }]);
  assert.deepEqual(describe(state({ stage: "downloading" }), 0).title, ["downloading", {}]);
});

test("what was saved says whether it was paid, paid before, or a rehearsal", () => {
  assert.deepEqual(describe(state({ stage: "saved" }), 0).title, ["saved", {}]);
  assert.deepEqual(describe(state({ stage: "saved", reused: true }), 0).title, ["reused", {}]);
  assert.deepEqual(describe(state({ stage: "saved", rehearsal: true, reused: true }), 0).title, ["rehearsed", {}]);
});

test("only unfinished states keep the clock going", () => {
  const stages = ["preparing", "sharing", "submitting", "queued", "generating", "downloading", "saved", "stopped", "failed"];
  assert.deepEqual(stages.filter((stage) => !isRunning(state({ stage }))), ["saved", "stopped", "failed"]);
  assert.equal(describe(state({ stage: "failed" }), 0).tone, "failed");
  assert.equal(describe(state({ stage: "submitting" }), 0).tone, "running");
});

test("the clock", () => {
  assert.deepEqual([0, 9.9, 60, 3725, -1].map(clock), ["0:00", "0:09", "1:00", "62:05", "0:00"]);
});
