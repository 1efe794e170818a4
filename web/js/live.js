/** The panel on generation nodes: what a run does now, and what the next one costs. */

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { addPanel, el, grow, paintWhile, setAttribute, setText } from "./dom.js";
import { describe, isOf, isRunning, merge } from "./progress.js";
import { costOf } from "./quote.js";
import { call } from "./server.js";
import { dollars, t } from "./text.js";
import { nodeAt, nodesIn, promptOf, termsOf } from "./upstream.js";

const ROW = 24;
const MARGIN = 20; // ComfyUI's, above and below an element on a node
const SETTLE_MS = 300;

const states = new Map();
const panels = new Map();
let clock = null;
let pending = null;

export function addLivePanel(node) {
  const panel = new Panel(node);
  panels.set(node, panel);
  const { onRemoved, onExecuted } = node;
  node.onExecuted = function (...args) {
    onExecuted?.apply(this, args);
    panel.hasClip = true;
  };
  node.onRemoved = function (...args) {
    onRemoved?.apply(this, args);
    panel.observer.disconnect();
    panels.delete(node);
  };
}

/** Follows the server's events and the graph's changes. Called once, before ComfyUI connects to its server. */
export function watch() {
  api.addEventListener("runcomfy_kling.progress", ({ detail }) => take(detail));
  api.addEventListener("reconnected", catchUp);
  api.addEventListener("graphChanged", refreshCosts);
  // `saved` is told while the node still runs: only at its end has the ledger noted what the clip was made of.
  api.addEventListener("executed", refreshCosts);
}

/** Shows what is known on the nodes of a graph that was just loaded. */
export function showAll() {
  for (const state of states.values()) {
    show(state);
    showClip(state);
  }
  refreshCosts();
}

/** Asks for the states of all runs: a page that was reloaded has missed its events. */
export async function catchUp() {
  const { nodes, now } = await call("/progress").catch(() => ({ nodes: {} }));
  for (const state of Object.values(nodes)) {
    take(state, now ? now - state.time : 0);
    showClip(state);
  }
}

/** age: seconds since the server sent this state, by its own clock. */
function take(state, age = 0) {
  const before = states.get(state.node)?.stage;
  if (!merge(states, { ...state, sent_at: performance.now() - 1000 * age })) return;
  show(states.get(state.node));
  if (state.stage !== before) refreshCosts();
}

const root = () => app.rootGraph ?? app.graph?.rootGraph ?? app.graph;

function panelOf(state) {
  return root() && isOf(state, root().id) ? panels.get(nodeAt(root(), state.node)) : undefined;
}

function show(state) {
  panelOf(state)?.setState(state);
  tick();
}

/** ComfyUI tells of an output once, so a page that was loading then has missed the clip. */
function showClip(state) {
  const panel = panelOf(state);
  if (!state.clips?.length || !state.workflow || !panel || panel.hasClip) return;
  const output = { images: state.clips, animated: [true] };
  api.dispatchCustomEvent("executed", { node: state.node, display_node: state.node, output });
}

/** Keeps elapsed times going while anything runs. */
function tick() {
  const running = [...panels.values()].filter(({ state }) => state && isRunning(state));
  if (running.length && !clock) clock = setInterval(tick, 1000);
  if (!running.length && clock) clock = clearInterval(clock) ?? null;
  running.forEach((panel) => panel.renderState());
}

function refreshCosts() {
  clearTimeout(pending);
  if (!panels.size) return;
  pending = setTimeout(() => {
    const seen = new Set();
    for (const { id, hosts, node } of nodesIn(root(), (one) => panels.has(one))) {
      // Two instances of one subgraph share their nodes: the first speaks for all.
      if (!seen.has(node)) panels.get(node).setTerms(id, promptOf({ hosts, node }));
      seen.add(node);
    }
  }, SETTLE_MS);
}

class Panel {
  constructor(node) {
    this.node = node;
    this.hasClip = false;
    this.hasCost = node.comfyClass !== "RunComfyKlingFetchVideo";
    this.height = this.hasCost ? ROW : 0;
    this.build();
    this.widget = addPanel(node, "live", this.element, () => this.height + MARGIN, () => this.height + MARGIN);
    paintWhile(this.widget, () => !this.state, (...place) => this.paint(...place));
    this.observer = new ResizeObserver(() => {
      const { offsetHeight } = this.inner;
      if (!offsetHeight || offsetHeight === this.height) return;
      this.height = offsetHeight;
      grow(node);
    });
    this.observer.observe(this.inner);
  }

  build() {
    this.title = el("span.rck-live-title");
    this.time = el("span.rck-live-time");
    this.bar = el("div.rck-live-bar", { role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100" }, el("i"));
    this.request = el("code");
    this.copy = el(
      "button.rck-icon",
      { type: "button", title: t("live.copy"), "aria-label": t("live.copy"), onclick: () => this.copyId() },
      el("i.pi.pi-copy", { "aria-hidden": "true" }),
    );
    this.message = el("p.rck-live-message");
    this.run = el(
      "div.rck-live-run",
      { hidden: true },
      el("div.rck-row", { "aria-live": "polite" }, el("i.rck-dot", { "aria-hidden": "true" }), this.title),
      this.bar,
      el("div.rck-row.rck-request", {}, this.request, this.copy),
      this.message,
    );
    this.run.firstChild.after(this.time);
    this.terms = el("span.rck-live-terms");
    this.cost = el("output.rck-live-cost", { title: t("cost.title") });
    this.inner = el("div.rck-live-inner", {}, this.run);
    if (this.hasCost) this.inner.append(el("div.rck-row.rck-cost", {}, this.terms, this.cost));
    this.element = el("section.rck.rck-live", { "aria-label": t("live.label") }, this.inner);
  }

  async copyId() {
    await navigator.clipboard.writeText(this.state.request_id);
    const icon = this.copy.firstChild;
    icon.className = "pi pi-check";
    this.copy.addEventListener("blur", () => (icon.className = "pi pi-copy"), { once: true });
  }

  setState(state) {
    this.state = state;
    this.run.hidden = false;
    setText(this.request, state.request_id ?? "");
    this.request.parentElement.hidden = !state.request_id;
    setText(this.message, state.outcome ? t(`live.outcome.${state.outcome}`) : (state.message ?? ""));
    this.renderState();
  }

  renderState() {
    const { state } = this;
    const { title, time, share, tone } = describe(state, isRunning(state) ? (performance.now() - state.sent_at) / 1000 : 0);
    const paid = state.stage === "saved" && !state.rehearsal && !state.reused && state.cost_usd !== null;
    this.run.dataset.tone = tone;
    setText(this.title, t(`live.${title[0]}`, title[1]));
    setText(this.time, time ? t(`live.${time[0]}`, time[1]) : paid ? dollars(state.cost_usd) : "");
    this.bar.hidden = share === null;
    this.bar.firstChild.style.width = `${(share ?? 0) * 100}%`;
    setAttribute(this.bar, "aria-valuenow", share === null ? null : String(Math.round(share * 100)));
  }

  /** The terms and the price as the canvas shows them before a first run. */
  paint(ctx, left, middle, width) {
    const { WIDGET_TEXT_COLOR: text, WIDGET_SECONDARY_TEXT_COLOR: muted } = window.LiteGraph;
    ctx.font = "12px Inter, system-ui, sans-serif";
    ctx.textBaseline = "middle";
    ctx.textAlign = "right";
    ctx.fillStyle = text;
    ctx.fillText(this.cost.textContent, left + width, middle);
    const room = width - ctx.measureText(this.cost.textContent).width - 6;
    ctx.textAlign = "left";
    ctx.fillStyle = muted;
    ctx.fillText(this.terms.textContent, left, middle, room);
  }

  /** What the node would run with; asks for its price when that changed. */
  async setTerms(id, prompt) {
    if (!this.hasCost) return;
    const { tier, seconds, audio } = termsOf(prompt, id);
    const parts = [seconds && t("cost.seconds", { seconds }), tier, audio !== null && t(audio ? "cost.audio" : "cost.silent")];
    setText(this.terms, parts.filter(Boolean).join(" · "));
    const asked = JSON.stringify([prompt, this.state?.stage]);
    const changed = asked !== this.asked;
    this.asked = asked;
    // A figure for other inputs must not stand there while the new one is on its way.
    if (changed) this.sayCost("");
    const { kind, usd, note } = await costOf(id, prompt);
    if (this.asked !== asked) return;
    this.cost.title = this.widget.tooltip = note || t("cost.title");
    this.sayCost(t(`cost.${kind}`, { usd: usd === undefined ? "" : dollars(usd) }));
  }

  sayCost(text) {
    setText(this.cost, text);
    this.node.setDirtyCanvas(true);
  }
}
