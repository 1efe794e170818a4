import assert from "node:assert/strict";
import { test } from "node:test";

import { layout, moveBorder, newShotSeconds, reorder } from "../../web/js/timebar.js";

const shots = (...seconds) => seconds.map((length, i) => ({ seconds: length, prompt: `shot ${i + 1}` }));
const lengths = (list) => list.map(({ seconds }) => seconds);

test("the bar is drawn to the scale of the longest video allowed", () => {
  const { span, stretches } = layout(shots(3, 6));
  assert.equal(span, 15);
  assert.deepEqual(stretches, [
    { from: 0, to: 3, left: 0, width: 3 / 15 },
    { from: 3, to: 9, left: 3 / 15, width: 6 / 15 },
  ]);
});

test("shots that are too long together shrink the scale, so that all are seen", () => {
  const { span, stretches } = layout(shots(10, 10));
  assert.equal(span, 20);
  assert.equal(stretches[1].left + stretches[1].width, 1);
});

test("an inner border moves seconds from one shot to the next", () => {
  assert.deepEqual(lengths(moveBorder(shots(5, 6, 3), 0, 2)), [7, 4, 3]);
  assert.deepEqual(lengths(moveBorder(shots(5, 6, 3), 0, -2)), [3, 8, 3]);
});

test("a border stops where a shot would get too short or too long", () => {
  assert.deepEqual(lengths(moveBorder(shots(5, 6), 0, 9)), [8, 3]);
  assert.deepEqual(lengths(moveBorder(shots(5, 6), 0, -9)), [3, 8]);
  assert.deepEqual(lengths(moveBorder(shots(10, 14), 0, -9)), [9, 15]);
});

test("the last border changes the length of the video, up to the longest allowed", () => {
  assert.deepEqual(lengths(moveBorder(shots(5, 5), 1, 2)), [5, 7]);
  assert.deepEqual(lengths(moveBorder(shots(5, 5), 1, 20)), [5, 10]);
  assert.deepEqual(lengths(moveBorder(shots(5, 5), 1, -20)), [5, 3]);
});

test("a border that already breaks a limit is not moved by touching it", () => {
  assert.deepEqual(lengths(moveBorder(shots(10, 8), 1, 0)), [10, 8]);
  assert.deepEqual(lengths(moveBorder(shots(10, 8), 1, 1)), [10, 8]);
  assert.deepEqual(lengths(moveBorder(shots(10, 8), 1, -3)), [10, 5]);
  assert.deepEqual(lengths(moveBorder(shots(2, 3), 0, 1)), [2, 3]);
});

test("reordering keeps every shot and leaves the list it was given alone", () => {
  const before = shots(3, 4, 5);
  assert.deepEqual(lengths(reorder(before, 0, 2)), [4, 5, 3]);
  assert.deepEqual(lengths(reorder(before, 2, 0)), [5, 3, 4]);
  assert.deepEqual(lengths(reorder(before, 2, 9)), [3, 4, 5]);
  assert.deepEqual(lengths(reorder(before, 0, -1)), [3, 4, 5]);
  assert.deepEqual(lengths(before), [3, 4, 5]);
});

test("a new shot gets five seconds, less where there is less room, never less than three", () => {
  assert.equal(newShotSeconds(shots()), 5);
  assert.equal(newShotSeconds(shots(5, 6)), 4);
  assert.equal(newShotSeconds(shots(8, 7)), 3);
});
