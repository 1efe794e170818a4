/** The storyboard editor: shots as cards under a time bar, written into the node's plain `script`. */

import { addPanel, el, grow, recordChange, setAttribute, setText } from "./dom.js";
import { parse, print, problems, SHOT, TOTAL, totalSeconds } from "./script.js";
import { t } from "./text.js";
import { layout, moveBorder, newShotSeconds, reorder } from "./timebar.js";

const BAR_HEIGHT = 92;
const CARD_HEIGHT = 94;
const NODE_WIDTH = 420;

/** Replaces the text field of a `RunComfyKlingStoryboard` node by the editor. */
export function addStoryboardEditor(node) {
  const script = node.widgets.find(({ name }) => name === "script");
  script.hidden = script.options.hidden = true;
  const editor = new StoryboardEditor(script, () => grow(node));
  const { onConnectionsChange } = node;
  node.onConnectionsChange = function (...args) {
    onConnectionsChange?.apply(this, args);
    const slot = node.inputs.findIndex(({ name }) => name === "script");
    editor.setLinked(slot >= 0 && node.isInputConnected(slot));
  };
  addPanel(node, "storyboard_editor", editor.element, () => editor.height);
  node.setSize([Math.max(node.size[0], NODE_WIDTH), node.computeSize()[1]]);
}

class StoryboardEditor {
  constructor(script, grow) {
    this.script = script;
    this.grow = grow;
    this.cards = [];
    this.linked = false;
    this.build();
    const { callback } = script;
    script.callback = (...args) => {
      callback?.apply(script, args);
      if (script.value !== this.text) this.read();
    };
    this.read();
  }

  get height() {
    return BAR_HEIGHT + CARD_HEIGHT * Math.min(this.storyboard.shots.length, 5);
  }

  build() {
    this.bar = el("div.rck-bar-shots");
    this.total = el("output.rck-total");
    this.spoken = el("span.rck-spoken", { "aria-live": "polite" });
    this.warning = el("p.rck-problem", { role: "alert" });
    this.list = el("ol.rck-cards", { "aria-label": t("storyboard.shots") });
    this.source = el("textarea.rck-source", {
      "aria-label": t("storyboard.script"),
      spellcheck: "false",
      placeholder: t("storyboard.example"),
      oninput: () => this.type(this.source.value),
      onchange: recordChange,
    });
    this.add = el(
      "button.rck-button",
      { type: "button", onclick: () => this.addShot() },
      el("i.pi.pi-plus", { "aria-hidden": "true" }),
      t("storyboard.add"),
    );
    this.toggle = el("button.rck-button", {
      type: "button",
      "aria-pressed": "false",
      onclick: () => this.showText(!this.inText()),
    }, t("storyboard.text"));
    this.element = el(
      "section.rck.rck-storyboard",
      { "data-view": "cards", "aria-label": t("storyboard.title") },
      el("div.rck-bar", {}, el("div.rck-bar-scale", { "aria-hidden": "true" }), this.bar),
      el("div.rck-row", {}, this.add, this.toggle, this.total),
      this.warning,
      this.list,
      this.source,
      this.spoken,
    );
  }

  /** Takes over the script as it is: after a load, an undo or a change from elsewhere. */
  read() {
    this.text = this.script.value ?? "";
    this.storyboard = parse(this.text);
    this.source.value = this.text;
    this.render();
  }

  write(text) {
    this.text = text;
    this.script.value = text;
    this.render();
    this.grow();
  }

  /** A script being typed: kept as typed, not as we would print it. */
  type(text) {
    this.storyboard = parse(text);
    this.write(text);
  }

  /** A change of the shots that is one step of undo. */
  change(shots) {
    this.storyboard = { ...this.storyboard, shots };
    this.source.value = print(this.storyboard);
    this.write(this.source.value);
    recordChange();
  }

  setPrompt(index, prompt) {
    const shots = this.storyboard.shots.with(index, { ...this.storyboard.shots[index], prompt });
    this.storyboard = { ...this.storyboard, shots };
    this.write((this.source.value = print(this.storyboard)));
  }

  setSeconds(index, seconds) {
    const { shots } = this.storyboard;
    const length = Math.min(Math.max(Math.round(seconds), SHOT.low), SHOT.high);
    if (length !== shots[index].seconds) this.change(shots.with(index, { ...shots[index], seconds: length }));
  }

  addShot() {
    const { shots } = this.storyboard;
    this.change([...shots, { seconds: newShotSeconds(shots), prompt: "" }]);
    this.cards.at(-1).prompt.focus();
  }

  removeShot(index) {
    this.change(this.storyboard.shots.toSpliced(index, 1));
    const next = this.cards[Math.min(index, this.cards.length - 1)];
    (next?.remove ?? this.add).focus();
    this.say("storyboard.removed", { number: index + 1 });
  }

  moveShot(from, to) {
    const { shots } = this.storyboard;
    if (to < 0 || to >= shots.length || to === from) return;
    this.change(reorder(shots, from, to));
    this.cards[to].handle.focus();
    this.say("storyboard.moved", { number: to + 1, count: shots.length });
  }

  /** A script that comes through a link is not ours to edit. */
  setLinked(linked) {
    if (linked === this.linked) return;
    this.linked = linked;
    for (const part of [this.bar, this.add, this.list, this.source]) part.inert = linked;
    this.element.classList.toggle("rck-linked", linked);
    this.render();
  }

  say(path, values) {
    setText(this.spoken, t(path, values));
  }

  showText(shown) {
    this.element.dataset.view = shown ? "text" : "cards";
    setAttribute(this.toggle, "aria-pressed", String(shown));
    this.read();
  }

  render() {
    const { shots } = this.storyboard;
    const { span, stretches } = layout(shots);
    while (this.cards.length > shots.length) {
      const card = this.cards.pop();
      card.element.remove();
      card.stretch.remove();
    }
    while (this.cards.length < shots.length) {
      const card = new Card(this, this.cards.length);
      this.cards.push(card);
      this.list.append(card.element);
      this.bar.append(card.stretch);
    }
    const found = problems(this.storyboard);
    this.cards.forEach((card, index) =>
      card.update(shots[index], stretches[index], found.filter(({ shot }) => shot === index)),
    );
    const whole = found.filter(({ shot }) => shot === undefined);
    const total = totalSeconds(shots);
    this.element.style.setProperty("--rck-span", span);
    setText(this.total, t("storyboard.total", { seconds: total, high: TOTAL.high }));
    this.total.classList.toggle("rck-wrong", whole.some(({ field }) => field === "total"));
    setText(this.warning, this.linked ? t("storyboard.linked") : this.inText() ? this.tell(found) : this.tell(whole));
    this.add.disabled = total + SHOT.low > TOTAL.high;
    this.add.title = this.add.disabled ? t("storyboard.full", { high: TOTAL.high, low: SHOT.low }) : "";
    this.bar.dataset.over = total > TOTAL.high;
  }

  inText() {
    return this.element.dataset.view === "text";
  }

  /** Problems in words, naming the shot: the text view has no card to show them on. */
  tell(found) {
    const { shots } = this.storyboard;
    return found
      .map(({ shot, rule }) => {
        const text = problemText(rule, { seconds: shots[shot]?.seconds });
        return shot === undefined ? text : t("storyboard.inShot", { number: shot + 1, problem: text });
      })
      .join(" ");
  }
}

const problemText = (rule, values) => t(`problem.${rule}`, { ...values, low: SHOT.low, high: SHOT.high });

/** One shot: its card in the list and its stretch of the time bar. */
class Card {
  constructor(editor, index) {
    this.editor = editor;
    this.index = index;
    const number = index + 1;
    const hint = `rck-${crypto.randomUUID()}`;
    this.handle = el(
      "button.rck-icon.rck-handle",
      {
        type: "button",
        title: t("storyboard.move"),
        "aria-label": t("storyboard.moveShot", { number }),
        onkeydown: (event) => this.moveByKey(event),
        onpointerdown: (event) => this.drag(event),
      },
      el("i.pi.pi-bars", { "aria-hidden": "true" }),
      String(number),
    );
    this.when = el("span.rck-when");
    this.seconds = el("span.rck-seconds", {
      role: "spinbutton",
      tabindex: "0",
      "aria-label": t("storyboard.secondsOf", { number }),
      "aria-valuemin": SHOT.low,
      "aria-valuemax": SHOT.high,
      "aria-describedby": hint,
      onkeydown: (event) => this.stepByKey(event),
    });
    this.remove = el(
      "button.rck-icon",
      {
        type: "button",
        title: t("storyboard.remove"),
        "aria-label": t("storyboard.removeShot", { number }),
        onclick: () => editor.removeShot(this.index),
      },
      el("i.pi.pi-times", { "aria-hidden": "true" }),
    );
    this.prompt = el("textarea.rck-prompt", {
      rows: "2",
      placeholder: t("storyboard.prompt"),
      "aria-label": t("storyboard.promptOf", { number }),
      "aria-describedby": hint,
      oninput: () => editor.setPrompt(this.index, this.prompt.value),
      onchange: () => {
        editor.read();
        recordChange();
      },
    });
    this.problem = el("p.rck-problem", { id: hint });
    this.element = el(
      "li.rck-card",
      {},
      el(
        "div.rck-row",
        {},
        this.handle,
        this.when,
        el("span.rck-stepper", {}, this.stepper("pi-minus", -1), this.seconds, this.stepper("pi-plus", 1)),
        this.remove,
      ),
      this.prompt,
      this.problem,
    );
    this.label = el("span", { "aria-hidden": "true" });
    this.border = el("span.rck-border", {
      role: "slider",
      tabindex: "0",
      title: t("storyboard.border"),
      "aria-label": t("storyboard.borderOf", { number }),
      onkeydown: (event) => this.borderByKey(event),
      onpointerdown: (event) => this.dragBorder(event),
    });
    this.stretch = el("div.rck-stretch", {}, this.label, this.border);
  }

  stepper(icon, by) {
    // The number itself takes the arrow keys, so these are for the pointer only.
    return el(
      "button.rck-icon",
      { type: "button", tabindex: "-1", "aria-hidden": "true", onclick: () => this.step(by) },
      el(`i.pi.${icon}`),
    );
  }

  update({ seconds, prompt }, { from, to, left, width }, found) {
    if (this.prompt.value.trim() !== prompt.trim()) this.prompt.value = prompt;
    setText(this.when, t("storyboard.from", { from, to }));
    setText(this.seconds, t("storyboard.seconds", { seconds }));
    setAttribute(this.seconds, "aria-valuenow", String(seconds));
    setAttribute(this.seconds, "aria-invalid", found.some(({ field }) => field === "seconds") && "true");
    setAttribute(this.prompt, "aria-invalid", found.some(({ field }) => field === "prompt") && "true");
    setText(this.problem, found.map(({ rule }) => problemText(rule, { seconds })).join(" "));
    this.stretch.style.left = `${left * 100}%`;
    this.stretch.style.width = `${width * 100}%`;
    this.stretch.classList.toggle("rck-wrong", found.length > 0);
    setText(this.label, `${this.index + 1}`);
    setAttribute(this.border, "aria-valuenow", String(to));
    setAttribute(this.border, "aria-valuetext", t("storyboard.from", { from, to }));
  }

  step(by) {
    this.editor.setSeconds(this.index, this.editor.storyboard.shots[this.index].seconds + by);
  }

  stepByKey(event) {
    const { seconds } = this.editor.storyboard.shots[this.index];
    const steps = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, Home: SHOT.low - seconds, End: SHOT.high - seconds };
    if (!(event.key in steps)) return;
    event.preventDefault();
    this.step(steps[event.key]);
  }

  moveByKey(event) {
    const places = { ArrowUp: -1, ArrowDown: 1 };
    if (!(event.key in places)) return;
    event.preventDefault();
    this.editor.moveShot(this.index, this.index + places[event.key]);
  }

  borderByKey(event) {
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 };
    if (!(event.key in steps)) return;
    event.preventDefault();
    this.editor.change(moveBorder(this.editor.storyboard.shots, this.index, steps[event.key]));
  }

  dragBorder(event) {
    if (event.button !== 0) return;
    const { editor, index } = this;
    const before = editor.storyboard;
    const second = editor.bar.getBoundingClientRect().width / layout(before.shots).span;
    follow(this.border, event, {
      move: ({ clientX }) => {
        const by = Math.round((clientX - event.clientX) / second);
        editor.storyboard = { ...before, shots: moveBorder(before.shots, index, by) };
        editor.render();
      },
      drop: () => editor.change(editor.storyboard.shots),
      cancel: () => editor.read(),
    });
  }

  drag(event) {
    if (event.button !== 0) return;
    const { editor, index } = this;
    const middles = editor.cards.map(({ element }) => {
      const { top, height } = element.getBoundingClientRect();
      return top + height / 2;
    });
    let to = index;
    const mark = () =>
      editor.cards.forEach(({ element }, i) => {
        element.classList.toggle("rck-dragged", i === index);
        element.classList.toggle("rck-drop-before", i === to && to < index);
        element.classList.toggle("rck-drop-after", i === to && to > index);
      });
    const done = () => {
      to = index;
      mark();
      this.element.classList.remove("rck-dragged");
    };
    follow(this.handle, event, {
      move: ({ clientY }) => {
        to = clientY < middles[index]
          ? middles.findIndex((middle) => clientY < middle)
          : middles.findLastIndex((middle) => clientY > middle);
        if (to < 0) to = index;
        mark();
      },
      drop: () => {
        const place = to;
        done();
        editor.moveShot(index, place);
      },
      cancel: done,
    });
  }
}

/** Follows a pressed pointer until it is let go, or lost. */
function follow(element, event, { move, drop, cancel }) {
  element.setPointerCapture(event.pointerId);
  const listening = new AbortController();
  const { signal } = listening;
  const end = (what) => {
    listening.abort();
    what();
  };
  let moved = false;
  element.addEventListener("pointermove", (at) => {
    moved = true;
    move(at);
  }, { signal });
  element.addEventListener("pointerup", () => end(moved ? drop : cancel), { signal });
  element.addEventListener("pointercancel", () => end(cancel), { signal });
}
