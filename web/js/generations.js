/** The sidebar tab: every generation the ledger knows, newest first. */

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { el, setAttribute, setText } from "./dom.js";
import { call } from "./server.js";
import { dollars, locale, t } from "./text.js";
import { scrollTo, visibleRows } from "./virtual_list.js";

const ROW = 60;
const PAGE = 200;
const REST_MS = 120;
const FETCH_MS = 2000;

/** What can be done with an entry: shown where `when` holds. */
const ACTIONS = [
  { name: "reveal", icon: "pi-folder-open", when: ({ path }) => path, act: post("reveal") },
  { name: "workflow", icon: "pi-sitemap", when: ({ path }) => path, act: loadWorkflow },
  { name: "fetch", icon: "pi-download", when: canBeFetched, act: post("fetch"), changes: true },
  { name: "copy", icon: "pi-copy", when: (entry) => entry.request_id, act: copyId },
  { name: "settle", icon: "pi-check", when: ({ state }) => state === "uncertain", act: settle, changes: true },
];

/** A clip that never came, or whose file is gone. */
function canBeFetched({ state, request_id: id, path, fetching }) {
  return ["submitted", "saved"].includes(state) && id && !path && !fetching;
}

function post(action) {
  return ({ id }) => call(`/generations/${id}/${action}`, "POST");
}

function copyId({ request_id: id }) {
  return navigator.clipboard.writeText(id);
}

async function loadWorkflow({ id }) {
  const { workflow } = await call(`/generations/${id}/workflow`);
  await app.loadGraphData(workflow);
}

async function settle({ id }) {
  const sure = await app.extensionManager.dialog.confirm({
    title: t("generations.settle"),
    message: t("generations.settleQuestion"),
  });
  if (!sure) return false;
  return post("settle")({ id });
}

const toast = (severity, summary) => app.extensionManager.toast.add({ severity, summary, life: 5000 });

const viewUrl = (view) => api.apiURL(`/view?${new URLSearchParams(view)}`);

const day = (date) => date.toDateString();

/** When, as short as it can be told: the time today, the day before that. */
function shortly(created) {
  const date = new Date(created * 1000);
  const style = day(date) === day(new Date()) ? { timeStyle: "short" } : { month: "short", day: "numeric" };
  return new Intl.DateTimeFormat(locale(), style).format(date);
}

const exactly = (created) =>
  new Intl.DateTimeFormat(locale(), { dateStyle: "medium", timeStyle: "short" }).format(created * 1000);

/** What stands in for the clip of an entry that has none. */
const ICONS = {
  submitting: "pi-upload",
  submitted: "pi-clock",
  saved: "pi-video",
  failed: "pi-times-circle",
  cancelled: "pi-ban",
  uncertain: "pi-question-circle",
};

const terms = ({ tier, seconds, audio, cost_usd: usd }) =>
  [
    tier,
    seconds && t("cost.seconds", { seconds }),
    audio === false && t("cost.silent"),
    typeof usd === "number" && dollars(usd),
  ]
    .filter(Boolean)
    .join(" · ");

/** What is to be said of an entry beside its state. */
function told({ fetching, fetch_error: reason, message }) {
  if (fetching) return t("generations.fetching");
  return reason ? t("generations.failedFetch", { reason }) : message;
}

export function generationsTab() {
  let list = null;
  return {
    id: "runcomfy-kling-generations",
    icon: "pi pi-video",
    title: t("generations.tab"),
    tooltip: t("generations.title"),
    type: "custom",
    render(container) {
      list?.close();
      list = new Generations();
      container.classList.add("rck-tab");
      container.replaceChildren(list.element);
      list.reload();
    },
    destroy() {
      list?.close();
      list = null;
    },
  };
}

class Generations {
  constructor() {
    this.entries = [];
    this.total = 0;
    this.rows = new Map();
    this.build();
    this.onProgress = ({ detail: { stage } }) => {
      if (["queued", "saved", "failed", "stopped"].includes(stage) && stage !== this.stage) this.reload();
      this.stage = stage;
    };
    api.addEventListener("runcomfy_kling.progress", this.onProgress);
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.scroller);
  }

  close() {
    this.closed = true;
    api.removeEventListener("runcomfy_kling.progress", this.onProgress);
    this.observer.disconnect();
    clearTimeout(this.resting);
    clearTimeout(this.following);
  }

  build() {
    this.count = el("span.rck-count");
    this.rail = el("div.rck-rail", { role: "presentation" });
    this.scroller = el(
      "div.rck-list",
      {
        role: "listbox",
        tabindex: "0",
        "aria-label": t("generations.title"),
        onscroll: () => this.draw(),
        onkeydown: (event) => this.moveByKey(event),
      },
      this.rail,
    );
    this.note = el("p.rck-note", { role: "status" });
    this.detail = el("section.rck-detail", { hidden: true, "aria-label": t("generations.detail") });
    this.element = el(
      "div.rck.rck-generations",
      {},
      el(
        "header.rck-row",
        {},
        el("h2", {}, t("generations.title")),
        this.count,
        el(
          "button.rck-icon",
          { type: "button", title: t("generations.reload"), "aria-label": t("generations.reload"), onclick: () => this.reload() },
          el("i.pi.pi-refresh", { "aria-hidden": "true" }),
        ),
      ),
      el("details.rck-takes", {}, el("summary", {}, t("generations.takes")), el("p", {}, t("generations.takesHow"))),
      this.note,
      this.scroller,
      this.detail,
    );
  }

  async reload() {
    try {
      const { entries, total } = await call(`/generations?limit=${PAGE}`);
      this.tellFailed(entries);
      this.entries = entries;
      this.total = total;
      setText(this.note, total ? "" : t("generations.none"));
      setText(this.count, total ? String(total) : "");
    } catch (error) {
      setText(this.note, error.message);
    }
    this.draw();
    this.follow();
    const chosen = this.entries.find(({ id }) => id === this.chosen?.id);
    if (chosen && JSON.stringify(chosen) !== JSON.stringify(this.chosen)) this.choose(this.entries.indexOf(chosen));
  }

  /** Looks again as long as a clip is being fetched: what no node asked for is told by no event. */
  follow() {
    clearTimeout(this.following);
    if (!this.closed && this.entries.some(({ fetching }) => fetching)) this.following = setTimeout(() => this.reload(), FETCH_MS);
  }

  /** Says of clips that were being fetched, by what was known so far, that they did not come. */
  tellFailed(entries) {
    const waited = new Set(this.entries.filter(({ fetching }) => fetching).map(({ id }) => id));
    for (const entry of entries) if (waited.has(entry.id) && entry.fetch_error) toast("error", told(entry));
  }

  /** Reads on until row `last` is known. Pages follow one another, as each begins where the one before ended. */
  async readTo(last) {
    if (this.reading) return;
    this.reading = true;
    try {
      while (this.entries.length < Math.min(last, this.total)) {
        const list = this.entries;
        const { entries } = await call(`/generations?limit=${PAGE}&before=${list.at(-1).id}`);
        if (list !== this.entries) break;
        if (!entries.length) this.total = list.length;
        list.push(...entries);
      }
    } catch (error) {
      setText(this.note, error.message);
      return;
    } finally {
      this.reading = false;
    }
    this.draw();
  }

  draw() {
    const { scrollTop: top, clientHeight: height } = this.scroller;
    const { first, last } = visibleRows({ top, height, row: ROW, count: this.total });
    this.rail.style.height = `${this.total * ROW}px`;
    for (const [index, row] of this.rows) {
      if (index >= first && index < last) continue;
      row.element.remove();
      this.rows.delete(index);
    }
    for (let index = first; index < last; index++) {
      if (!this.rows.has(index)) {
        const row = new Row(index, () => this.choose(index));
        this.rows.set(index, row);
        this.rail.append(row.element);
      }
      const entry = this.entries[index];
      this.rows.get(index).update(entry, this.total, entry !== undefined && entry.id === this.chosen?.id);
    }
    // Clips load where the scrolling rests, not while rows fly by.
    clearTimeout(this.resting);
    this.resting = setTimeout(() => this.rows.forEach((row) => row.loadClip()), REST_MS);
    if (last > this.entries.length) this.readTo(last);
  }

  choose(index) {
    const entry = this.entries[index];
    if (!entry) return;
    this.index = index;
    this.chosen = entry;
    setAttribute(this.scroller, "aria-activedescendant", rowId(index));
    this.draw();
    this.showDetail(entry);
  }

  moveByKey(event) {
    const page = Math.floor(this.scroller.clientHeight / ROW);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    const step = steps[event.key];
    if (step === undefined && event.key !== "Enter") return;
    event.preventDefault(); // or the Enter that moves the focus to a clip would play it as well
    if (step === undefined) return this.detail.querySelector("video, button")?.focus();
    const to = Math.min(Math.max((this.index ?? -1) + step, 0), this.entries.length - 1);
    const { scrollTop: top, clientHeight: height } = this.scroller;
    this.scroller.scrollTop = scrollTo(to, { top, height, row: ROW });
    this.choose(to);
  }

  showDetail(entry) {
    const { state, prompt, view, created, request_id: id } = entry;
    const message = told(entry);
    this.detail.hidden = false;
    this.detail.replaceChildren(
      ...(view ? [el("video", { src: viewUrl(view), controls: true, preload: "metadata" })] : []),
      el("p.rck-detail-terms", {}, `${terms(entry)} · ${exactly(created)}`),
      el("p", {}, prompt ?? t("generations.noPrompt")),
      ...(message ? [el("p.rck-detail-message", { "data-state": state }, message)] : []),
      ...(id ? [el("code.rck-detail-id", {}, id)] : []),
      el("div.rck-actions", {}, ...ACTIONS.filter((action) => action.when(entry)).map((action) => this.button(action, entry))),
    );
  }

  button({ name, icon, act, changes }, entry) {
    const run = async () => {
      button.disabled = true;
      try {
        const answer = await act(entry);
        if (answer !== false) toast("success", answer?.message ?? t(`generations.done.${name}`));
        if (changes) await this.reload();
      } catch (error) {
        toast("error", error.message);
      } finally {
        button.disabled = false;
      }
    };
    const button = el(
      "button.rck-button",
      { type: "button", onclick: run },
      el(`i.pi.${icon}`, { "aria-hidden": "true" }),
      t(`generations.${name}`),
    );
    return button;
  }
}

const rowId = (index) => `rck-generation-${index}`;

class Row {
  constructor(index, choose) {
    this.index = index;
    this.prompt = el("span.rck-generation-prompt");
    this.state = el("span.rck-state");
    this.terms = el("span.rck-generation-terms");
    this.when = el("time.rck-generation-when");
    this.clip = el("div.rck-thumb", { "aria-hidden": "true" });
    this.element = el(
      "div.rck-generation",
      { id: rowId(index), role: "option", "aria-posinset": index + 1, onclick: choose },
      this.clip,
      el(
        "div.rck-generation-text",
        {},
        this.prompt,
        el("span.rck-generation-line", {}, this.state, this.terms, this.when),
      ),
    );
    this.element.style.top = `${index * ROW}px`;
  }

  update(entry, total, chosen) {
    setAttribute(this.element, "aria-setsize", total);
    setAttribute(this.element, "aria-selected", String(chosen));
    if (entry === this.entry) return;
    this.entry = entry;
    if (!entry) return;
    this.clip.replaceChildren(el(`i.pi.${ICONS[entry.state]}`));
    setText(this.prompt, entry.prompt ?? t("generations.noPrompt"));
    setText(this.state, t(`generations.state.${entry.state}`));
    this.state.dataset.state = entry.state;
    setText(this.terms, terms(entry));
    setText(this.when, shortly(entry.created));
  }

  loadClip() {
    if (!this.entry?.view || this.clip.querySelector("video")) return;
    const src = `${viewUrl(this.entry.view)}#t=0.1`;
    this.clip.replaceChildren(el("video", { src, preload: "metadata", muted: true, tabindex: "-1" }));
  }
}
