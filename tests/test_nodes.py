"""The public contract of the nodes, in plain Python: what shared workflows rely on."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runcomfy_kling import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS, WEB_DIRECTORY
from runcomfy_kling.nodes.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
GENERATION = ["video_path STRING", "video VIDEO", "last_frame IMAGE", "request_id STRING"]
TAIL = ["variation INT 0", "rehearsal BOOLEAN False", "filename_prefix STRING video/kling", "request_id STRING "]
CONTRACT: dict[str, tuple[str, list[str], list[str], list[str]]] = {
    "RunComfyKlingTextToVideo": (
        "Kling Text to Video (RunComfy)",
        [
            "prompt STRING ",
            "tier standard/pro/4k pro",
            "duration INT 5",
            "aspect_ratio 16:9/9:16/1:1 16:9",
            "generate_audio BOOLEAN True",
            "cfg_scale FLOAT 0.5",
        ],
        ["negative_prompt STRING ", "storyboard KLING_STORYBOARD", "shot_type customize/intelligent customize", *TAIL],
        GENERATION,
    ),
    "RunComfyKlingImageToVideo": (
        "Kling Image to Video (RunComfy)",
        [
            "prompt STRING ",
            "tier standard/pro/4k standard",
            "duration INT 10",
            "generate_audio BOOLEAN True",
            "cfg_scale FLOAT 0.5",
        ],
        [
            "start_image IMAGE",
            "end_image IMAGE",
            "elements KLING_ELEMENTS",
            "negative_prompt STRING ",
            "storyboard KLING_STORYBOARD",
            "start_image_url STRING ",
            *TAIL,
        ],
        GENERATION,
    ),
    "RunComfyKlingStoryboard": (
        "Kling Storyboard (RunComfy)",
        ["script STRING [5s] Wide shot of terraced hills at dusk.\n[3s] Close on two glasses touching."],
        [],
        ["storyboard KLING_STORYBOARD", "duration INT"],
    ),
    "RunComfyKlingShot": (
        "Kling Shot (RunComfy)",
        ["prompt STRING ", "duration INT 5"],
        ["storyboard KLING_STORYBOARD"],
        ["storyboard KLING_STORYBOARD"],
    ),
    "RunComfyKlingElement": (
        "Kling Element (RunComfy)",
        [],
        [
            "frontal_image IMAGE",
            "reference_images IMAGE",
            "video VIDEO",
            "video_url STRING ",
            "elements KLING_ELEMENTS",
        ],
        ["elements KLING_ELEMENTS"],
    ),
    "RunComfyKlingFetchVideo": (
        "Kling Fetch Video (RunComfy)",
        ["request_id STRING "],
        ["filename_prefix STRING video/kling"],
        GENERATION,
    ),
}


def written(inputs: dict[str, Any]) -> list[str]:
    lines = []
    for name, (kind, options) in inputs.items():
        kind = "/".join(kind) if isinstance(kind, list) else kind
        lines.append(f"{name} {kind} {options['default']}" if "default" in options else f"{name} {kind}")
    return lines


@pytest.mark.parametrize("node_id", CONTRACT)
def test_ids_names_inputs_order_and_defaults(node_id: str) -> None:
    display_name, required, optional, outputs = CONTRACT[node_id]
    node = NODE_CLASS_MAPPINGS[node_id]
    inputs = node.INPUT_TYPES()
    assert NODE_DISPLAY_NAME_MAPPINGS[node_id] == display_name
    assert written(inputs["required"]) == required
    assert written(inputs.get("optional", {})) == optional
    assert [f"{name} {kind}" for name, kind in zip(node.RETURN_NAMES, node.RETURN_TYPES, strict=True)] == outputs


def test_there_are_these_and_no_others() -> None:
    assert set(NODE_CLASS_MAPPINGS) == set(NODE_DISPLAY_NAME_MAPPINGS) == set(CONTRACT)
    assert WEB_DIRECTORY == "./web"


@pytest.mark.parametrize("node_id", CONTRACT)
def test_every_node_explains_itself(node_id: str) -> None:
    node = NODE_CLASS_MAPPINGS[node_id]
    inputs = node.INPUT_TYPES()
    assert node.CATEGORY == "RunComfy/Kling"
    assert node.DESCRIPTION
    assert "kling" in node.SEARCH_ALIASES
    assert len(node.OUTPUT_TOOLTIPS) == len(node.RETURN_TYPES)
    assert all(options["tooltip"] for part in ("required", "optional") for _, options in inputs.get(part, {}).values())
    assert inspect.iscoroutinefunction(getattr(node, node.FUNCTION))
    assert getattr(node, "OUTPUT_NODE", False) is (CONTRACT[node_id][3] == GENERATION)


def test_limits_come_with_the_inputs() -> None:
    inputs = NODE_CLASS_MAPPINGS["RunComfyKlingTextToVideo"].INPUT_TYPES()
    duration, cfg_scale = inputs["required"]["duration"][1], inputs["required"]["cfg_scale"][1]
    variation = inputs["optional"]["variation"][1]
    assert (duration["min"], duration["max"]) == (3, 15)
    assert (cfg_scale["min"], cfg_scale["max"], cfg_scale["step"]) == (0, 1, 0.01)
    assert (variation["min"], variation["max"], variation["control_after_generate"]) == (0, 2147483647, True)


def test_the_pack_loads_under_any_name_without_comfyui_torch_or_the_http_library() -> None:
    program = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('any_name', {str(ROOT / '__init__.py')!r},"
        f" submodule_search_locations=[{str(ROOT)!r}])\n"
        "pack = importlib.util.module_from_spec(spec); sys.modules['any_name'] = pack\n"
        "spec.loader.exec_module(pack)\n"
        "assert len(pack.NODE_CLASS_MAPPINGS) == 6\n"
        "print(sorted({'torch', 'requests', 'av', 'boto3', 'aiohttp', 'PIL', 'sqlite3'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def refused(node_id: str, **inputs: Any) -> str:
    """What VALIDATE_INPUTS says at queue time."""
    answer = NODE_CLASS_MAPPINGS[node_id].VALIDATE_INPUTS(**inputs)
    assert answer is not True, "it was accepted"
    return str(answer)


@pytest.mark.parametrize(
    ("node_id", "inputs", "words"),
    [
        ("RunComfyKlingTextToVideo", {"prompt": " ", "tier": "pro"}, "prompt is empty"),
        ("RunComfyKlingTextToVideo", {"prompt": "x", "tier": "hd"}, "tier"),
        ("RunComfyKlingTextToVideo", {"prompt": "x", "tier": "pro", "shot_type": "intelligent"}, "intelligent"),
        ("RunComfyKlingTextToVideo", {"prompt": "x", "tier": "pro", "request_id": "a/b"}, "request_id"),
        ("RunComfyKlingImageToVideo", {"prompt": "x", "tier": "pro"}, "start_image is missing"),
        (
            "RunComfyKlingImageToVideo",
            {"prompt": "x", "tier": "pro", "start_image": None, "start_image_url": "https://a.b/c.png"},
            "both set",
        ),
        (
            "RunComfyKlingImageToVideo",
            {"prompt": "x", "tier": "standard", "start_image": None, "end_image": None},
            "end_image",
        ),
        (
            "RunComfyKlingImageToVideo",
            {"prompt": "x", "tier": "pro", "start_image_url": "http://a.b/c.png"},
            "not an https address",
        ),
        ("RunComfyKlingStoryboard", {"script": "A man walks."}, "line 1"),
        ("RunComfyKlingStoryboard", {"script": "[5s] a\n[2s] b"}, "line 2"),
        ("RunComfyKlingStoryboard", {"script": "[9s] a\n[9s] b"}, "18 s"),
        ("RunComfyKlingShot", {"prompt": " "}, "no prompt"),
        ("RunComfyKlingElement", {"video_url": ""}, "element is empty"),
        ("RunComfyKlingElement", {"video_url": "ftp://a.b/c.mp4"}, "not an https address"),
        ("RunComfyKlingFetchVideo", {"request_id": ""}, "request_id is empty"),
        ("RunComfyKlingFetchVideo", {"request_id": "a b"}, "characters"),
    ],
)
def test_what_is_refused_when_the_prompt_is_queued(node_id: str, inputs: dict[str, Any], words: str) -> None:
    assert words in refused(node_id, **inputs)


@pytest.mark.parametrize(
    ("node_id", "inputs"),
    [
        # A linked input is None: only the run will tell.
        ("RunComfyKlingTextToVideo", {"prompt": None, "tier": "pro"}),
        ("RunComfyKlingTextToVideo", {"prompt": "", "tier": "pro", "storyboard": None}),
        ("RunComfyKlingTextToVideo", {"prompt": "x", "tier": None, "shot_type": "intelligent"}),
        ("RunComfyKlingTextToVideo", {"prompt": "x", "tier": "pro", "shot_type": None, "request_id": None}),
        ("RunComfyKlingImageToVideo", {"prompt": "x", "tier": None, "start_image": None, "end_image": None}),
        ("RunComfyKlingImageToVideo", {"prompt": "x", "tier": "pro", "start_image_url": None}),
        ("RunComfyKlingStoryboard", {"script": None}),
        ("RunComfyKlingShot", {"prompt": None}),
        ("RunComfyKlingElement", {"frontal_image": None, "video_url": ""}),
        ("RunComfyKlingElement", {"video_url": None}),
        ("RunComfyKlingFetchVideo", {"request_id": None}),
    ],
)
def test_what_may_be_fine_is_not_refused_at_queue_time(node_id: str, inputs: dict[str, Any]) -> None:
    assert NODE_CLASS_MAPPINGS[node_id].VALIDATE_INPUTS(**inputs) is True


def call(node_id: str, **inputs: Any) -> Any:
    node = NODE_CLASS_MAPPINGS[node_id]()
    return asyncio.run(getattr(node, node.FUNCTION)(**inputs))


def test_shots_and_a_script_make_the_same_storyboard() -> None:
    (first,) = call("RunComfyKlingShot", prompt=" One ", duration=5)
    (both,) = call("RunComfyKlingShot", prompt="Two", duration=4, storyboard=first)
    assert call("RunComfyKlingStoryboard", script="[5s] One\n[4s] Two") == (both, 9)


@pytest.mark.parametrize("duration", [2, 16])
def test_a_linked_shot_length_is_checked_when_it_runs(duration: int) -> None:
    with pytest.raises(InputError, match=f"lasts {duration} s"):
        call("RunComfyKlingShot", prompt="x", duration=duration)


def test_elements_in_a_row_and_not_a_fourth() -> None:
    pixels = torch.rand(1, 8, 8, 3)
    elements: tuple[Any, ...] = ()
    for count in range(1, 4):
        (elements,) = call("RunComfyKlingElement", frontal_image=pixels, elements=elements)
        assert len(elements) == count
    with pytest.raises(InputError, match="4 elements: 3 at most"):
        call("RunComfyKlingElement", frontal_image=pixels, elements=elements)


def test_an_element_is_a_still_a_batch_or_a_video() -> None:
    (elements,) = call(
        "RunComfyKlingElement",
        frontal_image=torch.zeros(1, 8, 8, 3),
        reference_images=torch.ones(4, 8, 8, 3),
        video_url=" https://example.com/a.mp4 ",
    )
    (element,) = elements
    assert element.frontal.pixels.max() == 0
    assert len(element.references) == 4
    assert element.video.url == "https://example.com/a.mp4"
    with pytest.raises(InputError, match="batch of 2"):
        call("RunComfyKlingElement", frontal_image=torch.zeros(2, 8, 8, 3))
    with pytest.raises(InputError, match="element is empty"):
        call("RunComfyKlingElement", video_url="  ")


def image_to_video(**inputs: Any) -> Any:
    defaults = {"prompt": "x", "tier": "pro", "duration": 5, "generate_audio": False, "cfg_scale": 0.5}
    return call("RunComfyKlingImageToVideo", **(defaults | {"rehearsal": True} | inputs))


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, "start_image is missing"),
        ({"start_image": torch.zeros(3, 8, 8, 3)}, "batch of 3"),
        ({"start_image": torch.zeros(1, 8, 8, 3), "end_image": torch.zeros(2, 8, 8, 3)}, "end_image .* batch of 2"),
        ({"start_image": torch.full((1, 8, 8, 3), np.nan)}, "start_image .*64 of 64"),
        ({"start_image": torch.zeros(1, 0, 8, 3)}, "start_image has no pixels"),
        (
            {"start_image": torch.zeros(1, 8, 8, 3), "tier": "standard", "end_image": torch.zeros(1, 8, 8, 3)},
            "end_image",
        ),
        ({"start_image": torch.zeros(1, 8, 8, 3), "duration": 99}, "duration is 99"),
        ({"start_image": torch.zeros(1, 8, 8, 3), "cfg_scale": 7.0}, "cfg_scale is 7.0"),
        ({"start_image": torch.zeros(1, 8, 8, 3), "variation": -1}, "variation is -1"),
    ],
)
def test_what_only_the_run_can_know_is_refused_before_anything_is_sent(inputs: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        image_to_video(**inputs)
