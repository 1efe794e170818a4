"""Whether two prompts ask for the same clip, told from the prompts alone."""

from __future__ import annotations

from typing import Any

import pytest
from runcomfy_kling.nodes.graph import signature

PROMPT: dict[str, Any] = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
    "2": {"class_type": "Scale", "inputs": {"image": ["1", 0], "factor": 2}},
    "5:3": {
        "class_type": "RunComfyKlingImageToVideo",
        "inputs": {"start_image": ["2", 0], "prompt": "x", "tier": "pro"},
    },
    "9": {"class_type": "Other", "inputs": {}},
}


def changes(class_type: str, inputs: Any) -> Any:
    """As ComfyUI would say it: a loader by its file, a camera never twice the same."""
    if class_type == "Camera":
        raise LookupError(class_type)
    return f"content of {inputs['image']}" if class_type == "LoadImage" else None


def signed(changed: dict[str, dict[str, Any]] | None = None, changes: Any = changes) -> str | None:
    prompt = {node: {**what, "inputs": what["inputs"] | (changed or {}).get(node, {})} for node, what in PROMPT.items()}
    return signature(prompt, "5:3", changes)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"9": {"anything": 1}},
        {"5:3": {"filename_prefix": "elsewhere", "rehearsal": True, "request_id": "r-1"}},
        {"5:3": {"video-preview": "shown"}, "2": {"video-preview": ""}},
    ],
)
def test_what_does_not_matter(changed: dict[str, dict[str, Any]]) -> None:
    assert signed(changed) == signed() is not None


@pytest.mark.parametrize(
    "changed",
    [
        {"5:3": {"prompt": "y"}},
        {"5:3": {"variation": 1}},
        {"5:3": {"start_image": ["1", 0]}},
        {"5:3": {"start_image": ["2", 1]}},
        {"2": {"factor": 3}},
        {"2": {"filename_prefix": "part of another node"}},
        {"1": {"image": "b.png"}},
    ],
)
def test_what_matters(changed: dict[str, dict[str, Any]]) -> None:
    assert signed(changed) not in (None, signed())


def test_another_file_under_the_same_name_is_another_clip() -> None:
    assert signed(changes=lambda class_type, inputs: "other content") not in (None, signed())


@pytest.mark.parametrize(
    "prompt",
    [
        {},
        {"5:3": {"class_type": "X", "inputs": {"start_image": ["7", 0]}}},
        {"5:3": {"class_type": "X", "inputs": {"image": ["7", 0]}}, "7": {"class_type": "Camera", "inputs": {}}},
        {"5:3": {"class_type": "X", "inputs": {"image": ["5:3", 0]}}},
        {"5:3": {"class_type": "X", "inputs": {"number": float("nan")}}},
        {"5:3": "no node"},
    ],
)
def test_nothing_is_claimed_where_it_cannot_be_told(prompt: Any) -> None:
    assert signature(prompt, "5:3", changes) is None
