import assert from "node:assert/strict";
import { test } from "node:test";

import { nodeAt, nodesIn, promptOf, termsOf } from "../../web/js/upstream.js";

/** A graph with the few members of ComfyUI's that upstream.js reads. */
class Graph {
  nodes = [];
  links = new Map();

  add(id, type, values = {}, more = {}) {
    const graph = this;
    const node = {
      id, type, comfyClass: type, graph, mode: 0, inputs: [],
      widgets: Object.entries(values).map(([name, value]) => ({ name, value, options: {} })),
      getInputLink: (slot) => graph.links.get(node.inputs[slot]?.link),
      ...more,
    };
    this.nodes.push(node);
    return node;
  }

  link(id, from, slot, to, name) {
    this.links.set(id, { origin_id: from, origin_slot: slot, target_id: to?.id, target_slot: to?.inputs.length });
    if (to) to.inputs.push({ name, link: id, widget: to.widgets.some((w) => w.name === name) ? { name } : undefined });
  }

  getLink(id) {
    return this.links.get(id);
  }
}

const CLIP = { prompt: "Dusk.", tier: "pro", duration: 5, generate_audio: true, rehearsal: false };
const terms = (node, hosts = []) => {
  const id = [...hosts, node].map((one) => one.id).join(":");
  return termsOf(promptOf({ hosts, node }), id);
};

test("the widgets of a node are its inputs, but not what is kept out of the prompt", () => {
  const node = new Graph().add(2, "RunComfyKlingTextToVideo", CLIP);
  node.widgets.push({ name: "live_1", value: "", options: { serialize: false } });
  node.widgets.push({ name: "video-preview", value: "", options: {} });
  assert.deepEqual(promptOf({ hosts: [], node }), { 2: { class_type: "RunComfyKlingTextToVideo", inputs: CLIP } });
  assert.deepEqual(terms(node), { tier: "pro", seconds: 5, audio: true, rehearsal: false });
});

test("a storyboard sets the seconds, through reroutes and a chain of shots", () => {
  const graph = new Graph();
  graph.add(1, "RunComfyKlingStoryboard", { script: "[4s] One\n[3s] Two" });
  const reroute = graph.add(2, "Reroute");
  graph.link(10, 1, 0, reroute, "");
  const shot = graph.add(3, "RunComfyKlingShot", { prompt: "Three", duration: 6 });
  graph.link(11, 2, 0, shot, "storyboard");
  const clip = graph.add(4, "RunComfyKlingTextToVideo", CLIP);
  graph.link(12, 3, 0, clip, "storyboard");
  assert.equal(terms(clip).seconds, 13);
});

test("what another pack's node gives is not known, and neither is a length outside the limits", () => {
  const graph = new Graph();
  graph.add(1, "SomethingElse", { value: 7 });
  const linked = graph.add(2, "RunComfyKlingTextToVideo", CLIP);
  graph.link(10, 1, 0, linked, "duration");
  assert.equal(terms(linked).seconds, null);
  assert.equal(terms(graph.add(3, "RunComfyKlingTextToVideo", { ...CLIP, duration: 16 })).seconds, null);
  const muted = graph.add(4, "RunComfyKlingStoryboard", { script: "[4s] One" }, { mode: 2 });
  const clip = graph.add(5, "RunComfyKlingTextToVideo", CLIP);
  graph.link(11, muted.id, 0, clip, "storyboard");
  assert.equal(terms(clip).seconds, null);
});

test("constants are followed: a primitive, ComfyUI's own value nodes, the storyboard's duration", () => {
  const graph = new Graph();
  graph.add(1, "PrimitiveNode", { value: 8 });
  graph.add(2, "PrimitiveInt", { value: 9 });
  graph.add(3, "RunComfyKlingStoryboard", { script: "[4s] One\n[3s] Two" });
  const seconds = [1, 2, 3].map((from, i) => {
    const clip = graph.add(10 + i, "RunComfyKlingTextToVideo", CLIP);
    graph.link(20 + i, from, from === 3 ? 1 : 0, clip, "duration");
    return terms(clip).seconds;
  });
  assert.deepEqual(seconds, [8, 9, 7]);
});

test("through the walls of subgraphs, inwards and outwards", () => {
  const inner = new Graph();
  const clip = inner.add(2, "RunComfyKlingTextToVideo", CLIP);
  inner.link(1, -10, 0, clip, "storyboard");
  inner.link(2, -10, 1, clip, "tier");
  const maker = new Graph();
  maker.add(7, "RunComfyKlingStoryboard", { script: "[9s] One" });
  maker.link(5, 7, 0);

  const graph = new Graph();
  const source = graph.add(6, "uuid-a", {}, { isSubgraphNode: () => true, subgraph: maker });
  maker.outputs = [{ linkIds: [5] }];
  const host = graph.add(5, "uuid-b", { tier: "4k" }, { isSubgraphNode: () => true, subgraph: inner });
  // As ComfyUI's does: it looks at the subgraph's outputs.
  host.getInputLink = () => inner.outputNode.slots[0];
  graph.link(30, source.id, 0, host, "storyboard");
  host.inputs.push({ name: "tier", link: null, widget: { name: "tier" } });

  const found = [...nodesIn(graph, (node) => node.comfyClass === "RunComfyKlingTextToVideo")];
  assert.deepEqual(found.map(({ id }) => id), ["5:2"]);
  assert.equal(nodeAt(graph, "5:2"), clip);
  assert.equal(nodeAt(graph, "5:9"), undefined);
  assert.equal(nodeAt(graph, "8:2"), undefined);
  assert.deepEqual(terms(clip, [host]), { tier: "4k", seconds: 9, audio: true, rehearsal: false });
  assert.ok("6:7" in promptOf({ hosts: [host], node: clip }));
});
