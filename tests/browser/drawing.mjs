/**
 * How long ComfyUI draws fifty generation nodes while one of them runs, with this pack's extension and without it.
 * Prints milliseconds a draw; takes the setup of editor.mjs, and `scale`, the zoom.
 */

import assert from "node:assert/strict";

import { load, open, runcomfy } from "./browser.mjs";

const NODES = 50;
const ROUNDS = 8;
const DRAWS = 40;

const setup = JSON.parse(process.argv[2]);

const workflow = {
  last_node_id: NODES,
  last_link_id: 0,
  nodes: Array.from({ length: NODES }, (_, i) => ({
    id: i + 1, type: "RunComfyKlingTextToVideo", pos: [440 * (i % 10), 760 * Math.floor(i / 10)], size: [400, 640],
    flags: {}, order: i, mode: 0, inputs: [], outputs: [], properties: {},
    widgets_values: ["A lake.", "pro", 3, "16:9", false, 0.5, "", "customize", setup.variation, "fixed", false, "video/kling", ""],
  })),
  links: [], groups: [], config: {}, extra: {}, version: 0.4,
};

/** Runs one node and waits until the page shows it running. */
async function run() {
  const { api } = await import("/scripts/api.js");
  const running = new Promise((resolve) => api.addEventListener("progress_state", resolve, { once: true }));
  await app.queuePrompt(0, 1, ["1"]);
  await running;
}

/** Milliseconds of each draw: of the canvas, and of all that follows from it up to the layout of the page. */
async function measure(draws) {
  const { canvas } = app;
  const times = [];
  for (let i = 0; i < draws; i++) {
    canvas.ds.offset[0] += i % 2 ? 1 : -1; // as panning does: every element on a node moves
    const start = performance.now();
    canvas.draw(true, true);
    const drawn = performance.now();
    await new Promise((resolve) => setTimeout(resolve)); // after what ComfyUI's framework has put off
    document.body.getBoundingClientRect();
    times.push({ canvas: drawn - start, page: performance.now() - start });
  }
  return times;
}

/** The first quartile: what other programs take of the machine shows in the slow ones. */
const usual = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 4)];

await runcomfy("hold_work");
const pages = [];
for (const bare of [false, true]) {
  const opened = await open({ ...setup, bare });
  await load(opened.page, workflow);
  await opened.page.evaluate((scale) => {
    app.canvas.ds.scale = scale;
    app.canvas.ds.offset = [20, 60];
  }, setup.scale);
  pages.push({ ...opened, name: bare ? "without" : "with", times: [] });
}
const [withIt] = pages;
const account = (method, data) =>
  withIt.page.context().request.fetch(`${setup.url}/runcomfy_kling/account`, { method, headers: { Origin: setup.url }, data });
await account("PUT", { token: "not-a-real-token" });
for (let round = 0; round < ROUNDS; round++) {
  for (const { page, times } of round % 2 ? pages : pages.toReversed()) {
    await page.evaluate(run);
    times.push(...(await page.evaluate(measure, DRAWS)));
    await page.evaluate(() => app.extensionManager.command.execute("Comfy.Interrupt"));
  }
}
const panels = () => app.graph.nodes.flatMap(({ widgets }) => widgets.filter(({ type }) => type === "live")).length;
assert.deepEqual(await Promise.all(pages.map(({ page }) => page.evaluate(panels))), [NODES, 0]);
for (const part of ["canvas", "page"]) {
  const [ours, bare] = pages.map(({ times }) => usual(times.map((time) => time[part])));
  console.log(`${part}: ${ours.toFixed(2)} ms with, ${bare.toFixed(2)} ms without, ${((100 * ours) / bare - 100).toFixed(1)} % more`);
}
await account("DELETE");
await runcomfy("release_work");
for (const { close } of pages) await close();
