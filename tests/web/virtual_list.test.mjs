import assert from "node:assert/strict";
import { test } from "node:test";

import { scrollTo, visibleRows } from "../../web/js/virtual_list.js";

test("only what is seen is drawn, with some rows to spare", () => {
  assert.deepEqual(visibleRows({ top: 0, height: 600, row: 60, count: 10000 }), { first: 0, last: 14 });
  assert.deepEqual(visibleRows({ top: 300_030, height: 600, row: 60, count: 10000 }), { first: 4996, last: 5015 });
  assert.deepEqual(visibleRows({ top: 599_400, height: 600, row: 60, count: 10000 }), { first: 9986, last: 10000 });
});

test("a list that got shorter than the scroll position draws nothing", () => {
  assert.deepEqual(visibleRows({ top: 6000, height: 600, row: 60, count: 3 }), { first: 3, last: 3 });
  assert.deepEqual(visibleRows({ top: 0, height: 600, row: 60, count: 0 }), { first: 0, last: 0 });
});

test("scrolling to a row moves as little as it can", () => {
  const view = { top: 600, height: 600, row: 60 };
  assert.equal(scrollTo(5, view), 300);
  assert.equal(scrollTo(12, view), 600);
  assert.equal(scrollTo(20, view), 660);
});
