/** What a generation node would be run with, read from the graph without queueing it. */

import { parse, TOTAL, totalSeconds } from "./script.js";

const PACK = "RunComfyKling";
const SUBGRAPH_INPUT = -10; // ComfyUI's node id for the inside of a subgraph's inputs
const NEVER = 2;
const BYPASS = 4;
const PLAYER = "video-preview"; // ComfyUI's own, among the widgets once a clip was shown: no input

/** The execution id of a node, such as `5:2` for node 2 inside subgraph node 5. */
const idOf = ({ hosts, node }) => [...hosts, node].map(({ id }) => id).join(":");

/** Every node of a type that `wanted` accepts, subgraphs included, with its execution id. */
export function* nodesIn(graph, wanted, hosts = []) {
  for (const node of graph.nodes) {
    if (node.isSubgraphNode?.()) yield* nodesIn(node.subgraph, wanted, [...hosts, node]);
    else if (wanted(node)) yield { id: idOf({ hosts, node }), hosts, node };
  }
}

/** The node with an execution id, or undefined. */
export function nodeAt(graph, id) {
  const path = String(id).split(":");
  const last = path.pop();
  const inner = path.reduce((inside, host) => find(inside, host)?.subgraph, graph);
  return find(inner, last);
}

// Node ids are numbers in older frontends and strings in newer ones.
const find = (graph, id) => graph?.nodes.find((node) => String(node.id) === id);

// Not getInputLink: a subgraph node's looks inside.
const linkInto = ({ graph, id }, slot) =>
  [...graph.links.values()].find((link) => String(link.target_id) === String(id) && link.target_slot === slot);

/** Where a link comes from: `{at, slot}` for a node, `{value}` for a constant, or null where that cannot be told. */
function origin(at, link) {
  const { hosts } = at;
  if (Number(link.origin_id) === SUBGRAPH_INPUT) {
    const host = hosts.at(-1);
    const outside = linkInto(host, link.origin_slot);
    if (outside) return origin({ hosts: hosts.slice(0, -1), node: host }, outside);
    const name = host.inputs[link.origin_slot]?.widget?.name;
    const widget = host.widgets?.find((one) => one.name === name);
    return widget ? { value: widget.value } : null;
  }
  const node = find(at.node.graph, String(link.origin_id));
  if (!node || node.mode === NEVER || node.mode === BYPASS) return null;
  if (node.isSubgraphNode?.()) {
    const [inside] = node.subgraph.outputs[link.origin_slot]?.linkIds ?? [];
    const inner = node.subgraph.getLink(inside);
    return inner ? origin({ hosts: [...hosts, node], node: { graph: node.subgraph } }, inner) : null;
  }
  if (node.type === "Reroute") {
    const before = node.getInputLink(0);
    return before ? origin({ hosts, node }, before) : null;
  }
  if (node.type === "PrimitiveNode") return { value: node.widgets?.[0]?.value };
  return { at: { hosts, node }, slot: link.origin_slot };
}

/**
 * The part of the API prompt that a node depends on, itself included. Where that cannot be told, an input is null.
 * ComfyUI's own way to the prompt is not taken: it lets widgets act, a webcam for one takes its picture.
 * @returns {Record<string, {class_type: string, inputs: object}>} by execution id
 */
export function promptOf(at, prompt = {}) {
  const { node } = at;
  const inputs = {};
  prompt[idOf(at)] = { class_type: node.comfyClass ?? node.type, inputs };
  for (const widget of node.widgets ?? []) {
    if (widget.name && widget.name !== PLAYER && widget.options?.serialize !== false) inputs[widget.name] = widget.value;
  }
  (node.inputs ?? []).forEach(({ name }, slot) => {
    const link = node.getInputLink(slot);
    if (!link) return;
    const from = origin(at, link);
    if (!from) inputs[name] = null;
    else if ("value" in from) inputs[name] = from.value;
    else {
      inputs[name] = [idOf(from.at), from.slot];
      if (!prompt[inputs[name][0]]) promptOf(from.at, prompt);
    }
  });
  return prompt;
}

/** A value as the server would get it, through nodes that hold a constant; null where it is not known. */
function constant(prompt, value) {
  if (!Array.isArray(value)) return value ?? null;
  const { class_type: type, inputs } = prompt[value[0]] ?? {};
  if (type === `${PACK}Storyboard`) return storyboardSeconds(prompt, value);
  return type?.startsWith("Primitive") ? constant(prompt, inputs.value) : null;
}

function storyboardSeconds(prompt, link) {
  const { class_type: type, inputs } = prompt[link?.[0]] ?? {};
  if (type === `${PACK}Storyboard`) {
    const script = constant(prompt, inputs.script);
    return typeof script === "string" ? totalSeconds(parse(script).shots) : null;
  }
  if (type !== `${PACK}Shot`) return null;
  const own = constant(prompt, inputs.duration);
  const before = "storyboard" in inputs ? storyboardSeconds(prompt, inputs.storyboard) : 0;
  return own === null || before === null ? null : own + before;
}

/**
 * What the price of a generation depends on.
 * @returns {{tier: string|null, seconds: number|null, audio: boolean|null, rehearsal: boolean|null}} null where unknown
 */
export function termsOf(prompt, id) {
  const { inputs } = prompt[id];
  const seconds =
    "storyboard" in inputs ? storyboardSeconds(prompt, inputs.storyboard) : constant(prompt, inputs.duration);
  const possible = Number.isInteger(seconds) && seconds >= TOTAL.low && seconds <= TOTAL.high;
  return {
    tier: constant(prompt, inputs.tier),
    seconds: possible ? seconds : null,
    audio: constant(prompt, inputs.generate_audio),
    rehearsal: constant(prompt, inputs.rehearsal),
  };
}
