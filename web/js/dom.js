/** Elements, and how they live on ComfyUI's canvas. */

import { app } from "../../../scripts/app.js";

/**
 * An element. Text only ever becomes text: there is no way here to pass HTML.
 * @param {string} tag with classes, such as `button.rck-icon`
 * @param {object} properties `on*` are listeners, the others attributes; true is a bare one, null and false none
 * @param {...(Node|string)} children
 */
export function el(tag, properties = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name);
  element.classList.add(...classes);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else setAttribute(element, key, value);
  }
  element.append(...children);
  return element;
}

export function setAttribute(element, name, value) {
  if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else element.setAttribute(name, value === true ? "" : value);
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const scrolls = (element, root) => {
  for (let part = element; part && part !== root.parentElement; part = part.parentElement) {
    if (part.scrollHeight > part.clientHeight + 1 && /auto|scroll/.test(getComputedStyle(part).overflowY)) return true;
  }
  return false;
};

/** Keeps what is done inside an element on a node from moving, deleting or zooming nodes, and panning still pans. */
export function settle(element) {
  const forward = (event, pressed, handle) => {
    if (pressed) app.canvas[handle](event);
    event.stopPropagation();
  };
  element.addEventListener("pointerdown", (event) => forward(event, event.button === 1, "processMouseDown"));
  element.addEventListener("pointermove", (event) => forward(event, event.buttons & 4, "processMouseMove"));
  element.addEventListener("pointerup", (event) => forward(event, event.button === 1, "processMouseUp"));
  element.addEventListener("wheel", (event) => {
    event.stopPropagation();
    if (!event.ctrlKey && scrolls(event.target, element)) return;
    event.preventDefault();
    app.canvas.processMouseWheel(event);
  });
  element.addEventListener("keydown", (event) => {
    if (!event.ctrlKey && !event.metaKey) event.stopPropagation();
  });
}

let widgets = 0;

/**
 * Puts an element on a node as its last widget, saved neither in the workflow nor in the prompt.
 * @param {() => number} getMinHeight in graph units
 * @param {() => number} [getMaxHeight] without it, the panel takes what room the node has left
 */
export function addPanel(node, name, element, getMinHeight, getMaxHeight) {
  settle(element);
  // Nodes 2.0 would keep showing the element of a node that undo replaced, were the name the same.
  const widget = node.addDOMWidget(`${name}_${++widgets}`, name, element, {
    serialize: false,
    getMinHeight,
    getMaxHeight,
  });
  widget.serialize = false;
  return widget;
}

/**
 * Has a panel drawn on the canvas by `paint(ctx, left, middle, width)` as long as `wanted()`, in place of its element.
 * The classic renderer measures the page for every element in sight at each draw, which is felt with one more on each
 * node. Nodes 2.0 knows elements only.
 */
export function paintWhile(widget, wanted, paint) {
  const { draw, isVisible } = widget;
  const painted = () => wanted() && !window.LiteGraph.vueNodesMode;
  widget.isVisible = () => !painted() && isVisible.call(widget);
  widget.draw = (...args) => {
    if (!painted()) return draw.apply(widget, args);
    const [ctx, , width, y, , lowQuality] = args;
    if (lowQuality) return;
    ctx.save();
    paint(ctx, widget.margin, y + widget.computedHeight / 2, width - 2 * widget.margin);
    ctx.restore();
  };
}

/** Lays a node out anew, and gives it the height its widgets need where it has less. */
export function grow(node) {
  // Nodes 2.0 fits a node to its content by itself; a second opinion would only end up in the undo history.
  if (window.LiteGraph.vueNodesMode) return;
  const [width, height] = node.computeSize();
  if (node.size[1] < height) node.setSize([Math.max(node.size[0], width), height]);
  node.setDirtyCanvas(true, true);
}

/** Makes what was changed since the last call one step of ComfyUI's undo. */
export function recordChange() {
  app.canvas.emitBeforeChange();
  app.canvas.emitAfterChange();
}
