import assert from "node:assert/strict";
import { test } from "node:test";

import { parse, print, problems, totalSeconds } from "../../web/js/script.js";

const shot = (seconds, prompt) => ({ seconds, prompt });

test("a shot begins with its length at the start of a line", () => {
  const script = "[5s] Terraced hills at dusk.\n  [ 3 S ] Two glasses\ntouching [close].\n";
  assert.deepEqual(parse(script), {
    before: "",
    shots: [shot(5, "Terraced hills at dusk."), shot(3, "Two glasses\ntouching [close].")],
  });
});

test("a bracket inside a line is prompt", () => {
  assert.deepEqual(parse("[4s] A sign reads [3s] in red").shots, [shot(4, "A sign reads [3s] in red")]);
});

test("blank lines inside a prompt are kept, around it they are not", () => {
  assert.deepEqual(parse("[4s]\n\nOne\n\ntwo\n\n[3s] Three").shots, [shot(4, "One\n\ntwo"), shot(3, "Three")]);
});

test("line ends of Windows and old Macs are line ends, a line separator is not", () => {
  assert.deepEqual(parse("[4s] One\r\n[3s] Two\r[5s] Three\u2028[6s] still three").shots, [
    shot(4, "One"),
    shot(3, "Two"),
    shot(5, "Three\u2028[6s] still three"),
  ]);
});

test("text before the first shot is kept and named", () => {
  const storyboard = parse("A film.\n[4s] One");
  assert.equal(storyboard.before, "A film.");
  assert.equal(print(storyboard), "A film.\n[4s] One");
  assert.deepEqual(problems(storyboard), [{ field: "before", rule: "before" }]);
});

test("what is printed reads back the same", () => {
  for (const script of ["[5s] One\n[3s] Two\nlines", "[15s]", "", "words only", "[2.5s] Half"]) {
    const storyboard = parse(script);
    assert.equal(print(storyboard), script);
    assert.deepEqual(parse(print(storyboard)), storyboard);
  }
});

test("problems say which shot and which field", () => {
  assert.deepEqual(problems(parse("")), [{ field: "total", rule: "empty" }]);
  assert.deepEqual(problems(parse("[2s] One\n[4s]\n[3.5s] Three\n[16s] Four")), [
    { shot: 0, field: "seconds", rule: "length" },
    { shot: 1, field: "prompt", rule: "prompt" },
    { shot: 2, field: "seconds", rule: "whole" },
    { shot: 3, field: "seconds", rule: "length" },
    { field: "total", rule: "total" },
  ]);
  assert.deepEqual(problems(parse("[8s] One\n[7s] Two")), []);
});

test("the total is the sum of the shots", () => {
  assert.equal(totalSeconds(parse("[8s] One\n[7s] Two").shots), 15);
});
