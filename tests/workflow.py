"""A workflow as the editor saves it, turned into the prompt that the editor would queue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
WITHOUT_EXECUTION = {"Note", "MarkdownNote", "Reroute", "PrimitiveNode"}
MUTED, BYPASSED = 2, 4
# The ids of a subgraph's own two ends, as its inner links name them.
SUBGRAPH_INPUT, SUBGRAPH_OUTPUT = -10, -20

Node = dict[str, Any]
Source = Any  # [node id, output index], or a constant


def to_prompt(workflow: dict[str, Any], object_info: dict[str, Any]) -> dict[str, Any]:
    """The API prompt of a UI workflow; ValueError names a node class that this ComfyUI lacks."""
    subgraphs = {graph["id"]: graph for graph in workflow.get("definitions", {}).get("subgraphs", [])}
    return dict(Graph(workflow, subgraphs, object_info).prompt())


class Graph:
    """One level: the workflow itself, or a subgraph as the node `instance` of the level `outer` uses it."""

    def __init__(
        self,
        content: dict[str, Any],
        subgraphs: dict[str, Any],
        object_info: dict[str, Any],
        outer: Graph | None = None,
        instance: Node | None = None,
        prefix: str = "",
    ) -> None:
        self.nodes: dict[int, Node] = {node["id"]: node for node in content["nodes"]}
        self.links = dict(map(read_link, content["links"]))
        self.inputs: list[dict[str, Any]] = content.get("inputs", [])
        self.subgraphs = subgraphs
        self.object_info = object_info
        self.outer = outer
        self.instance = instance
        self.prefix = prefix

    def inside(self, node: Node) -> Graph:
        prefix = f"{self.prefix}{node['id']}:"
        return Graph(self.subgraphs[node["type"]], self.subgraphs, self.object_info, self, node, prefix)

    def prompt(self) -> Iterator[tuple[str, Node]]:
        for node in self.nodes.values():
            if node.get("mode") in (MUTED, BYPASSED) or node["type"] in WITHOUT_EXECUTION:
                continue
            if node["type"] in self.subgraphs:
                yield from self.inside(node).prompt()
            elif node["type"] not in self.object_info:
                raise ValueError(f"this ComfyUI has no node {node['type']!r}")
            else:
                values = widget_values(node, self.object_info[node["type"]])
                yield (
                    f"{self.prefix}{node['id']}",
                    {
                        "class_type": node["type"],
                        "inputs": values | self.linked_values(node),
                    },
                )

    def linked_values(self, node: Node) -> dict[str, Source]:
        sources = {slot["name"]: self.source(slot.get("link")) for slot in node.get("inputs", [])}
        return {name: source for name, source in sources.items() if source is not None}

    def source(self, link: int | None) -> Source | None:
        """Where a link really comes from: through reroutes, bypassed nodes and the borders of subgraphs."""
        if link is None:
            return None
        origin, slot, _, _, kind = self.links[link]
        if origin == SUBGRAPH_INPUT:
            assert self.outer
            assert self.instance
            # A widget promoted to the border has no slot on the instance; the inner widget holds its value.
            name = self.inputs[slot]["name"]
            outside = (entry.get("link") for entry in self.instance.get("inputs", []) if entry["name"] == name)
            return self.outer.source(next(outside, None))
        node = self.nodes[origin]
        if node.get("mode") == MUTED:
            return None
        if node.get("mode") == BYPASSED:
            passing = (entry["link"] for entry in node["inputs"] if entry["type"] == kind and entry.get("link"))
            return self.source(next(passing, None))
        if node["type"] == "Reroute":
            return self.source(node["inputs"][0].get("link"))
        if node["type"] == "PrimitiveNode":
            return node["widgets_values"][0]
        if node["type"] in self.subgraphs:
            inner = self.inside(node)
            ends = (key for key, end in inner.links.items() if end[2:4] == (SUBGRAPH_OUTPUT, slot))
            return inner.source(next(ends, None))
        return [f"{self.prefix}{origin}", slot]


def read_link(link: Any) -> tuple[int, tuple[int, int, int, int, str]]:
    """Workflows write a link as a list, subgraphs as an object; both as id, (from, slot, to, slot, type)."""
    if isinstance(link, dict):
        link = [link[key] for key in ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")]
    return link[0], tuple(link[1:6])


def widget_values(node: Node, info: dict[str, Any]) -> dict[str, Any]:
    """Names the positional widgets_values; a widget that the workflow is too old to know has its default."""
    saved = iter(node.get("widgets_values") or [])
    inputs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
    values = {}
    for name, spec in inputs.items():
        kind, options = spec[0], spec[1] if len(spec) > 1 else {}
        if not (isinstance(kind, list) or kind in WIDGET_TYPES) or options.get("forceInput"):
            continue
        choices = kind if isinstance(kind, list) else options.get("options", [""])
        value = next(saved, options.get("default", choices[0] if choices else ""))
        if value is not None:
            values[name] = value
        if options.get("control_after_generate") or (kind == "INT" and name in ("seed", "noise_seed")):
            next(saved, None)
    return values
