/**
 * The pack in the graph editor, from the first card of a storyboard to the clip back on the canvas.
 * Takes its setup as JSON in the first argument: see `open`; `pictures`, a folder for a picture of each step;
 * `early`, whether it is the Nodes 2.0 of the frontend that ComfyUI pins;
 * `variation`, a number that no run on this server had before; `oldest`, the prompt of the ledger's first entry.
 */

import assert from "node:assert/strict";
import { join } from "node:path";

import { accessibility, load, open, ready, runcomfy, until } from "./browser.mjs";

const SCRIPT = "[5s] Wide shot of terraced hills at dusk.\n[3s] Close on two glasses touching.";
const LAMP = "A lamp is lit.";

const setup = JSON.parse(process.argv[2]);
const { page, complaints, close } = await open(setup);

const workflow = {
  last_node_id: 2,
  last_link_id: 1,
  nodes: [
    {
      id: 1, type: "RunComfyKlingStoryboard", pos: [90, 120], size: [440, 420], flags: {}, order: 0, mode: 0,
      inputs: [], properties: {}, widgets_values: [SCRIPT],
      outputs: [
        { name: "storyboard", type: "KLING_STORYBOARD", links: [1] },
        { name: "duration", type: "INT", links: null },
      ],
    },
    {
      id: 2, type: "RunComfyKlingTextToVideo", pos: [620, 120], size: [400, 640], flags: {}, order: 1, mode: 0,
      inputs: [{ name: "storyboard", type: "KLING_STORYBOARD", link: 1 }],
      outputs: [], properties: {},
      widgets_values: ["", "pro", 5, "16:9", false, 0.5, "", "customize", setup.variation, "fixed", true, "video/kling", ""],
    },
  ],
  links: [[1, 1, 0, 2, 0, "KLING_STORYBOARD"]],
  groups: [], config: {}, extra: {}, version: 0.4,
};

/** The workflow with another script, run for real on the account. */
function paid(text) {
  const graph = structuredClone(workflow);
  const [storyboard, clip] = graph.nodes;
  storyboard.widgets_values = [text];
  clip.widgets_values[10] = false;
  return graph;
}

const run = () => page.evaluate(() => app.queuePrompt(0, 1));
const stop = () => page.evaluate(() => app.extensionManager.command.execute("Comfy.Interrupt"));
const script = () => app.graph.nodes.find(({ type }) => type === "RunComfyKlingStoryboard")?.widgets[0].value;
const scriptIs = (wanted) => until(page, script, wanted);
const button = (name) => page.getByRole("button", { name, exact: true });
let source = null;
let number = 0;
const title = page.locator(".rck-live-title");

async function drag(from, to) {
  await page.mouse.move(from.x, from.y);
  await page.mouse.down();
  await page.mouse.move((from.x + to.x) / 2, (from.y + to.y) / 2);
  await page.mouse.move(to.x, to.y);
  await page.mouse.up();
}

async function middle(locator) {
  const { x, y, width, height } = await locator.boundingBox();
  return { x: x + width / 2, y: y + height / 2 };
}

/** Early Nodes 2.0 measures any node anew when it undoes, and takes that for a step of its own. */
async function pressUntil(key, wanted) {
  for (let presses = 0; presses < 3; presses++) {
    const before = await page.evaluate(script);
    await page.keyboard.press(key);
    await page.waitForFunction(([was, read]) => eval(read)() !== was, [before, `(${script})`], { timeout: 2000 }).catch(() => {});
    if ((await page.evaluate(script)) !== before) break;
  }
  await scriptIs(wanted);
}

/**
 * Waits for what a generation node says of its next run: its terms and their price. Read from the panel itself, which
 * the classic renderer paints on the canvas before a first run.
 */
const costIs = (wanted) =>
  until(
    page,
    (source) => {
      const node = app.canvas.graph.nodes.find(({ type }) => type === "RunComfyKlingTextToVideo");
      const { element } = node.widgets.find(({ type }) => type === "live");
      const said = [".rck-live-terms", ".rck-live-cost"].map((part) => element.querySelector(part).textContent).join(": ");
      return new RegExp(source).test(said) ? source : said;
    },
    wanted.source,
    wanted.source,
  );

/** What a draw of the canvas writes on it. */
function painted() {
  const { ctx } = app.canvas;
  const texts = [];
  ctx.fillText = function (text, ...place) {
    texts.push(text);
    return CanvasRenderingContext2D.prototype.fillText.call(this, text, ...place);
  };
  app.canvas.draw(true, true);
  delete ctx.fillText;
  return texts.filter((text) => text === "8 s · pro · silent" || text === "rehearsal, free").toSorted();
}

/** Whether the panel of the generation node ends above the node's own end. */
function insideItsNode() {
  const node = app.graph.nodes.find(({ type }) => type === "RunComfyKlingTextToVideo");
  const { bottom } = document.querySelector(".rck-live-cost").getBoundingClientRect();
  return bottom < app.canvas.ds.convertOffsetToCanvas([0, node.pos[1] + node.size[1]])[1] + app.canvas.canvas.getBoundingClientRect().top;
}

async function openAccount() {
  await page.evaluate(() => app.extensionManager.command.execute("Comfy.ShowSettingsDialog"));
  await page.getByText("RunComfy Kling", { exact: true }).first().click();
}

const steps = {
  async "a new node starts with its variation fixed"() {
    const control = await page.evaluate(() => {
      const node = LiteGraph.createNode("RunComfyKlingTextToVideo");
      app.graph.add(node);
      const value = node.widgets.find(({ name }) => name === "variation").linkedWidgets[0].value;
      app.graph.remove(node);
      return value;
    });
    assert.equal(control, "fixed");
  },

  async "links have their colours in every palette"() {
    for (const palette of ["light", "dark"]) {
      await page.evaluate((id) => app.extensionManager.setting.set("Comfy.ColorPalette", id), palette);
      await until(page, () => app.canvas.default_connection_color_byType.KLING_STORYBOARD, "#4db6ac");
      await until(page, () => app.canvas.constructor.link_type_colors.KLING_ELEMENTS, "#f48fb1");
    }
  },

  async "a storyboard by mouse"() {
    await load(page, workflow);
    await button("Add shot").click();
    await page.keyboard.type(LAMP);
    await scriptIs(`${SCRIPT}\n[5s] ${LAMP}`);
    const second = (await page.locator(".rck-bar-shots").boundingBox()).width / 15;
    const border = await middle(page.getByRole("slider", { name: "End of shot 1" }));
    await drag(border, { x: border.x - second, y: border.y });
    await scriptIs(`[4s] Wide shot of terraced hills at dusk.\n[4s] Close on two glasses touching.\n[5s] ${LAMP}`);
    const handle = page.locator(".rck-handle");
    const { x, y } = await middle(handle.nth(0));
    await drag(await middle(handle.nth(2)), { x, y: y - 6 });
    await scriptIs(`[5s] ${LAMP}\n[4s] Wide shot of terraced hills at dusk.\n[4s] Close on two glasses touching.`);
  },

  async "undo and redo"() {
    const moved = `[4s] Wide shot of terraced hills at dusk.\n[4s] Close on two glasses touching.\n[5s] ${LAMP}`;
    const typed = `${SCRIPT}\n[5s] ${LAMP}`;
    await pressUntil("Control+z", moved);
    await pressUntil("Control+z", typed);
    // Early Nodes 2.0 may take its own measuring for a change, and a change ends what can be done again.
    if (!setup.early) await pressUntil("Control+y", moved);
  },

  async "a storyboard by keyboard"() {
    await load(page, workflow);
    await page.locator(".rck-handle").nth(0).focus();
    await page.keyboard.press("ArrowDown");
    await scriptIs("[3s] Close on two glasses touching.\n[5s] Wide shot of terraced hills at dusk.");
    const focused = () => document.activeElement.getAttribute("aria-label");
    await until(page, focused, "Shot 2: move it with the arrow keys up and down");
    await page.keyboard.press("Tab");
    await until(page, focused, "Length of shot 2 in seconds");
    await page.keyboard.press("ArrowDown");
    await scriptIs("[3s] Close on two glasses touching.\n[4s] Wide shot of terraced hills at dusk.");
    await page.getByRole("slider", { name: "End of shot 2" }).focus();
    await page.keyboard.press("ArrowRight");
    await scriptIs("[3s] Close on two glasses touching.\n[5s] Wide shot of terraced hills at dusk.");
    await page.getByRole("button", { name: "Remove shot 1" }).press("Enter");
    await scriptIs("[5s] Wide shot of terraced hills at dusk.");
    await page.keyboard.press("Delete");
    await until(page, () => app.graph.nodes.length, 2);
  },

  async "what is wrong is told where it is wrong"() {
    await button("Text").click();
    await page.getByLabel("The storyboard as text").fill("[2s] Short.\n[14s]");
    await page.getByText("Shot 1: 2 s: a shot lasts 3 to 15 s. Shot 2: Say what this shot shows.").waitFor();
    await button("Text").click();
    await page.getByText("Say what this shot shows.", { exact: true }).waitFor();
    await page.getByText("A whole video lasts 3 to 15 s").waitFor();
    assert.equal(await page.locator("[aria-invalid=true]").count(), 2);
    assert.equal(await button("Add shot").isDisabled(), true);
  },

  async "a run in rehearsal, with a reload half way"() {
    await load(page, workflow);
    await costIs(/^8 s · pro · silent: rehearsal, free$/);
    if (setup.nodes2) await page.getByText("rehearsal, free").waitFor();
    else await until(page, painted, ["8 s · pro · silent", "rehearsal, free"]);
    await run();
    await title.getByText(/Queued|Generating/).waitFor();
    await page.reload();
    await ready(page);
    await title.getByText(/Queued|Generating|Downloading|Rehearsal saved/).waitFor();
    await title.getByText("Rehearsal saved").waitFor({ timeout: 60_000 });
    await page.reload();
    await ready(page);
    await page.waitForFunction(() => [...document.querySelectorAll("video")].some(({ readyState }) => readyState >= 2));
    source = await page.evaluate(() => [...document.querySelectorAll("video")].find(({ currentSrc }) => currentSrc).currentSrc);
    await button("Copy the request id").click();
    const id = await page.locator(".rck-request code").textContent();
    assert.ok(id.length > 8);
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), id);
  },

  async "state and cost inside a subgraph"() {
    await load(page, workflow);
    await page.evaluate(() => {
      const clip = app.graph.nodes.find(({ type }) => type === "RunComfyKlingTextToVideo");
      const { node } = app.graph.convertToSubgraph(new Set([clip]));
      app.canvas.openSubgraph(node.subgraph, node);
    });
    await costIs(/^8 s · pro · silent: rehearsal, free$/);
    await page.evaluate(() => app.canvas.setGraph(app.rootGraph ?? app.graph.rootGraph));
  },

  async "the clip brings its graph back"() {
    await load(page, { ...workflow, nodes: [workflow.nodes[1]], links: [] });
    await until(page, script, undefined);
    await page.evaluate(async (src) => {
      const bytes = await (await fetch(src)).blob();
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File([bytes], "clip.mp4", { type: "video/mp4" }));
      const at = { bubbles: true, cancelable: true, clientX: 1300, clientY: 700, dataTransfer };
      const canvas = document.querySelector("#graph-canvas");
      for (const name of ["dragenter", "dragover", "drop"]) canvas.dispatchEvent(new DragEvent(name, at));
    }, source);
    await scriptIs(SCRIPT);
  },

  async "names, and contrast on dark and light"() {
    await page.evaluate(() => {
      app.canvas.ds.scale = 1;
      app.canvas.ds.offset = [0, 0];
    });
    await button("Text").waitFor();
    for (const palette of ["light", "dark"]) {
      await page.evaluate((id) => app.extensionManager.setting.set("Comfy.ColorPalette", id), palette);
      await until(page, accessibility, []);
      await picture(palette);
    }
  },

  async "other languages"() {
    await load(page, workflow);
    const speak = (language) => page.evaluate((id) => app.extensionManager.setting.set("Comfy.Locale", id), language);
    await speak("ko");
    await button("샷 추가").waitFor();
    await costIs(/^8초 · pro · 무음: 리허설, 무료$/);
    const label = () => LiteGraph.createNode("RunComfyKlingShot").inputs.find(({ name }) => name === "storyboard").localized_name;
    await until(page, label, "스토리보드");
    await picture("korean");
    await page.evaluate(() => app.canvas.selectNode(app.graph.nodes.find(({ type }) => type === "RunComfyKlingTextToVideo")));
    await page.getByTestId("info-button").click();
    await page.locator(".node-help-content").getByText("새로운 입력 조합마다 한 번만 결제되며").waitFor();
    await picture("help in Korean");
    await speak("en");
    await button("Add shot").waitFor();
    await button("Toggle properties panel").first().click();
  },

  async "a token is set and tested"() {
    await openAccount();
    await page.getByText("No token yet").waitFor();
    await page.getByLabel("RunComfy API token").fill("not-a-real-token");
    await button("Save").click();
    await page.getByText("In force: the token saved here.").waitFor();
    await until(page, accessibility, []);
    assert.equal(await page.getByLabel("RunComfy API token").inputValue(), "");
    await button("Test").click();
    await page.getByText("RunComfy accepts the token.").waitFor();
    await page.keyboard.press("Escape");
  },

  async "what a run costs, before and after"() {
    await load(page, workflow);
    await page.evaluate(() => {
      const widget = app.graph.nodes.flatMap(({ widgets }) => widgets).find(({ name }) => name === "rehearsal");
      widget.value = false;
      app.canvas.emitBeforeChange();
      app.canvas.emitAfterChange();
    });
    await costIs(/^8 s · pro · silent: (from|about) \$0\.80$/);
    await picture("a price");
    await page.getByRole("button", { name: "Remove shot 2" }).click();
    await costIs(/^5 s · pro · silent: (from|about) \$0\.50$/);
    await run();
    await title.getByText("Saved", { exact: true }).waitFor({ timeout: 60_000 });
    assert.equal(await page.locator(".rck-live-time").textContent(), "$0.50");
    await costIs(/: free: already paid$/);
  },

  async "after Stop, what became of it"() {
    await load(page, paid("[3s] Waves in the fog."));
    await runcomfy("hold");
    await run();
    await title.getByText("Queued, position 1").waitFor();
    await stop();
    await page.getByText("The request was cancelled. Running the node again submits it anew.").waitFor();
    assert.equal(await title.textContent(), "Stopped");
    await costIs(/: (from|about) \$0\.30$/);
    await until(page, insideItsNode, true);
    await picture("stopped in the queue");
    await runcomfy("release");
    await runcomfy("hold_work");
    await run();
    await title.getByText("Generating").waitFor();
    await stop();
    await page.getByText("The request can no longer be cancelled and runs on.").waitFor();
    assert.equal(await title.textContent(), "Stopped");
    await costIs(/: free: already submitted$/);
    await runcomfy("release_work");
  },

  async "ten thousand generations"() {
    await page.evaluate(() => app.extensionManager.command.execute("Workspace.ToggleSidebarTab.runcomfy-kling-generations"));
    const list = page.getByRole("listbox", { name: "Kling generations" });
    await list.getByRole("option", { name: /Wide shot of terraced hills.*Saved.*pro · 5 s · silent · \$0\.50/ }).first().click();
    await button("Copy id").waitFor();
    await button("Open workflow").click();
    await page.getByText("The workflow is on the canvas.").first().waitFor();
    await scriptIs("[5s] Wide shot of terraced hills at dusk.");
    await until(page, accessibility, []);
    await list.evaluate((element) => (element.scrollTop = element.scrollHeight));
    await list.getByText(setup.oldest).waitFor();
    assert.ok((await list.getByRole("option").count()) < 40);
  },

  async "an unfinished generation is fetched and played"() {
    const list = page.getByRole("listbox", { name: "Kling generations" });
    await list.evaluate((element) => (element.scrollTop = 0));
    await list.getByRole("option", { name: /Unfinished.*pro · 3 s · silent/ }).click();
    const id = await page.locator(".rck-detail-id").textContent();
    await button("Copy id").click();
    await until(page, () => navigator.clipboard.readText(), id);
    await button("Fetch").click();
    await page.locator(".rck-detail video").waitFor();
    assert.equal(await page.locator(".rck-detail-id").textContent(), id);
    await page.waitForFunction(() => document.querySelector(".rck-detail video").readyState >= 2);
    await list.press("Enter");
    await page.keyboard.press("Space");
    await page.waitForFunction(() => document.querySelector(".rck-detail video").currentTime > 0);
  },

  async "an uncertain generation is settled"() {
    const list = page.getByRole("listbox", { name: "Kling generations" });
    await list.getByRole("option", { name: /Uncertain/ }).click();
    await page.getByText("the connection broke").waitFor();
    const settle = button("Mark as settled");
    await settle.click();
    await picture("settle");
    await page.getByText("Cancel", { exact: true }).click();
    await list.getByRole("option", { name: /Uncertain/ }).waitFor();
    await settle.click();
    await page.getByText("Confirm", { exact: true }).click();
    await list.getByRole("option", { name: /Uncertain/ }).waitFor({ state: "detached" });
    await settle.waitFor({ state: "detached" });
  },

  async "a token is cleared"() {
    await openAccount();
    await button("Clear").click();
    await page.getByText("No token yet").waitFor();
    await page.keyboard.press("Escape");
  },

  async "nothing is left behind when the nodes are gone"() {
    await page.evaluate(() => app.graph.clear());
    const before = await page.evaluate(() => window.listenersOfPack());
    assert.ok(before > 0);
    await page.evaluate(() => {
      const types = ["RunComfyKlingStoryboard", "RunComfyKlingTextToVideo", "RunComfyKlingImageToVideo", "RunComfyKlingFetchVideo"];
      const nodes = Array.from({ length: 20 }, (_, i) => LiteGraph.createNode(types[i % types.length]));
      for (const node of nodes) app.graph.add(node);
      for (const node of nodes) app.graph.remove(node);
    });
    assert.equal(await page.evaluate(() => window.listenersOfPack()), before);
    await until(page, () => window.intervalsOf("/js/live.js"), 0);
    await until(page, () => document.querySelectorAll(".rck-live, .rck-storyboard").length, 0);
    assert.deepEqual(complaints, []);
  },
};

const picture = (name) =>
  page.screenshot({ path: join(setup.pictures, `${String(number).padStart(2, "0")}-${name.replace(/\W+/g, "-")}.png`) });

for (const [name, step] of Object.entries(steps)) {
  number += 1;
  try {
    await step();
    console.log(`ok: ${name}`);
  } catch (error) {
    // The steps build on one another, so the first failure is the only one that tells something.
    console.log(`FAILED: ${name}\n${error.stack}\n${complaints.join("\n")}`);
    process.exitCode = 1;
  }
  await picture(name);
  if (process.exitCode) break;
}
await close();
