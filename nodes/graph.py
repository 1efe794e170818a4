"""Whether the clip of a node is paid already, told from the prompt alone: before it runs its stills are unknown.

The part of a prompt that a node depends on has a signature. When a clip was
made, the signature is noted with its request; the same signature later means
the same inputs. Where a node above may give something else each time, there is
no signature, and nothing is claimed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

# These decide where a clip lies or how it is brought, not what it is.
NOT_PART = {"filename_prefix", "rehearsal", "request_id"}

# The player that ComfyUI adds to a node once it has shown a clip goes into its prompts as if it were an input.
PLAYER = "video-preview"

Changes = Callable[[str, Mapping[str, Any]], Any]


def signature(graph: Mapping[str, Any], node_id: str, changes: Changes) -> str | None:
    """SHA-256 over a node and all that it depends on, or None where that cannot be told.

    graph: an API prompt. changes: what ComfyUI's IS_CHANGED gives for a class and its inputs; raises LookupError
    where nothing can be said of it.
    """
    try:
        inputs = {name: value for name, value in graph[node_id]["inputs"].items() if name not in NOT_PART}
        what = {"class": graph[node_id]["class_type"], "inputs": _inputs(graph, inputs, changes)}
        text = json.dumps(what, sort_keys=True, allow_nan=False)
    except (LookupError, TypeError, ValueError, RecursionError):
        return None
    return hashlib.sha256(text.encode()).hexdigest()


def _inputs(graph: Mapping[str, Any], inputs: Mapping[str, Any], changes: Changes) -> dict[str, Any]:
    return {
        name: {"output": value[1], "of": _described(graph, graph[value[0]], changes)} if _is_link(value) else value
        for name, value in inputs.items()
        if name != PLAYER
    }


def _described(graph: Mapping[str, Any], node: Mapping[str, Any], changes: Changes) -> dict[str, Any]:
    return {
        "class": node["class_type"],
        "changes": changes(node["class_type"], node["inputs"]),
        "inputs": _inputs(graph, node["inputs"], changes),
    }


def _is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)
