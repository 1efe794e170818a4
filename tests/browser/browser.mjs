/** A browser on a real ComfyUI: how it is opened, and what is looked at on every page. */

import { createInterface } from "node:readline";

import { chromium } from "playwright-core";

const CHROMIUM_ARGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"];

const SETTINGS = {
  "Comfy.TutorialCompleted": true,
  "Comfy.VueNodes.AutoScaleLayout": false,
  "Comfy.ColorPalette": "dark",
  "Comfy.Locale": "en",
  "Comfy.Minimap.Visible": false,
};

/** Counts the intervals that run, by the script that started them. Runs in the page before any other script. */
function countIntervals() {
  const running = new Map();
  const { setInterval: start, clearInterval: stop } = window;
  window.setInterval = (...args) => {
    const id = start(...args);
    running.set(id, new Error().stack);
    return id;
  };
  window.clearInterval = (id) => {
    running.delete(id);
    stop(id);
  };
  window.intervalsOf = (script) => [...running.values()].filter((stack) => stack.includes(script)).length;
}

/**
 * Counts what a pack listens to that outlives its elements: the window, the document, ComfyUI's API.
 * Runs in the page before any other script.
 */
function countListeners(pack) {
  const listening = new Map();
  const { addEventListener: add, removeEventListener: remove } = EventTarget.prototype;
  const outlives = (target) => !(target instanceof Node) || target === document;
  EventTarget.prototype.addEventListener = function (type, listener, options) {
    if (outlives(this ?? window) && new Error().stack.includes(`/extensions/${pack}/`)) {
      listening.set(listener, [...(listening.get(listener) ?? []), type]);
    }
    return add.call(this ?? window, type, listener, options);
  };
  EventTarget.prototype.removeEventListener = function (type, listener, options) {
    const left = (listening.get(listener) ?? []).filter((one) => one !== type);
    if (left.length) listening.set(listener, left);
    else listening.delete(listener);
    return remove.call(this ?? window, type, listener, options);
  };
  window.listenersOfPack = () => [...listening.values()].flat().length;
}

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Has RunComfy's stand-in do something: `hold`, `release`, `hold_work` or `release_work`. */
export async function runcomfy(what) {
  console.log(`runcomfy: ${what}`);
  await answers.next();
}

/**
 * @param {{url: string, chromium: string, nodes2: boolean, pack: string, bare?: boolean}} setup
 *   `pack` is its folder's name; `bare` leaves its scripts out
 * @returns {Promise<{page: import("playwright-core").Page, complaints: string[], close: Function}>}
 *   `complaints` collects what the pack puts into the console
 */
export async function open({ url, chromium: executablePath, nodes2, pack, bare = false }) {
  const browser = await chromium.launch({ executablePath, args: CHROMIUM_ARGS });
  const context = await browser.newContext({ viewport: { width: 1500, height: 950 }, reducedMotion: "reduce" });
  await context.grantPermissions(["clipboard-read", "clipboard-write"], { origin: url });
  await context.addInitScript(countIntervals);
  await context.addInitScript(countListeners, pack);
  if (bare) await context.route(`**/extensions/${pack}/**`, (route) => route.abort());
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  const complaints = [];
  // ComfyUI looks for a help page in the user's language before it takes the English one, which has no language.
  const ours = (text) => new RegExp(`/extensions/${pack}/(?!docs/.*/en\\.md)|runcomfy_kling`).test(text);
  page.on("console", (message) => {
    const text = `${message.type()}: ${message.text()} (${message.location().url})`;
    if (ours(text)) complaints.push(text);
  });
  page.on("pageerror", (error) => complaints.push(`${error.stack}`));
  await context.request.post(`${url}/settings`, { data: { ...SETTINGS, "Comfy.VueNodes.Enabled": nodes2 } });
  await page.goto(url);
  await ready(page);
  const close = async () => {
    await browser.close();
    process.stdin.destroy();
  };
  return { page, complaints, close };
}

/** Waits until ComfyUI has set up and loaded its first workflow. */
export async function ready(page) {
  await page.waitForFunction(
    () => window.app?.extensionManager && window.app.graph?.nodes.length && document.querySelector(".side-tool-bar-container"),
    null,
    { timeout: 60_000 },
  );
  await page.keyboard.press("Escape");
}

/** Puts a workflow on the canvas, at its own size and in sight. */
export async function load(page, workflow) {
  await page.evaluate(async (graph) => {
    await app.loadGraphData(graph);
    app.canvas.ds.scale = 1;
    app.canvas.ds.offset = [0, 0];
    app.canvas.setDirty(true, true);
  }, workflow);
}

const PATIENCE_MS = 15_000;

/**
 * Waits until `read` answers `wanted` in the page, and says what it answered last where it never does.
 * Asked from here: waitForFunction takes the promise of an async answer for the answer.
 */
export async function until(page, read, wanted, argument = undefined) {
  const value = JSON.stringify(wanted);
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    const answer = JSON.stringify(await page.evaluate(read, argument));
    if (answer === value) return;
    if (Date.now() > end) throw new Error(`expected ${value}, got ${answer}`);
    await page.evaluate(() => new Promise(requestAnimationFrame));
  }
}

/** What an assistive tool would stumble over inside the pack's elements: controls without a name, and faint text. */
export function accessibility() {
  const rgb = (colour) => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [red, green, blue, alpha] = canvas.getImageData(0, 0, 1, 1).data;
    return { parts: [red, green, blue], alpha: alpha / 255 };
  };
  const over = (top, under) => top.parts.map((part, i) => part * top.alpha + under[i] * (1 - top.alpha));
  const nodeColour = rgb(window.LiteGraph.NODE_DEFAULT_BGCOLOR).parts;
  const behind = (element) => {
    const layers = [];
    for (let part = element; part; part = part.parentElement) layers.push(rgb(getComputedStyle(part).backgroundColor));
    const solid = layers.findIndex(({ alpha }) => alpha === 1);
    // In the classic renderer the node is drawn on the canvas, below all elements.
    const onCanvas = element.closest(".dom-widget");
    const inside = onCanvas ? layers.slice(0, [...ancestors(element)].indexOf(onCanvas)) : layers.slice(0, solid);
    return inside.reduceRight((under, layer) => over(layer, under), onCanvas ? nodeColour : layers[solid].parts);
  };
  function* ancestors(element) {
    for (let part = element; part; part = part.parentElement) yield part;
  }
  const light = (parts) => {
    const [red, green, blue] = parts.map((part) => {
      const share = part / 255;
      return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const contrast = (a, b) => {
    const [dark, bright] = [light(a), light(b)].sort((x, y) => x - y);
    return (bright + 0.05) / (dark + 0.05);
  };
  const found = [];
  const seen = (element) => element.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true });
  for (const element of document.querySelectorAll(".rck *")) {
    if (!seen(element) || element.closest("[aria-hidden=true], :disabled, [inert], .rck-spoken")) continue;
    const text = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (text || element.matches("textarea, input")) {
      const under = behind(element);
      const ratio = contrast(over(rgb(getComputedStyle(element).color), under), under);
      if (ratio < 4.5) found.push(`contrast ${ratio.toFixed(1)}: ${element.className || element.tagName} "${element.textContent}"`);
    }
    if (element.matches("button, textarea, input, [role=slider], [role=spinbutton], [role=listbox]")) {
      const name = element.getAttribute("aria-label") ?? element.textContent;
      if (!name.trim()) found.push(`no name: ${element.outerHTML}`);
    }
  }
  return found;
}
