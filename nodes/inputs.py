"""The inputs of the generation nodes, made from the endpoint table, with a tooltip each.

Order and defaults are public: shared workflows hold widget values by position.
Add at the end of `optional`; never rename, never reorder.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .errors import InputError
from .kling.endpoints import ENDPOINTS, MAX_ELEMENTS, TIERS, Field, Task, choices, tiers_with
from .kling.request import MAX_VARIATION, UNKNOWN

CATEGORY = "RunComfy/Kling"
STORYBOARD = "KLING_STORYBOARD"
ELEMENTS = "KLING_ELEMENTS"
DEFAULT_PREFIX = "video/kling"
HIDDEN = {"unique_id": "UNIQUE_ID", "prompt_graph": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}

RETURN_TYPES = ("STRING", "VIDEO", "IMAGE", "STRING")
RETURN_NAMES = ("video_path", "video", "last_frame", "request_id")
OUTPUT_TOOLTIPS = (
    "Absolute path of the saved MP4.",
    "The clip, for Save Video and every other node that takes a video.",
    "The last frame of the clip as one still: connect it to the start_image of the next clip to chain them.",
    "RunComfy's id of this request. Kling Fetch Video brings the clip again by it, free of charge.",
)

FILENAME_PREFIX = (
    "STRING",
    {
        "default": DEFAULT_PREFIX,
        "tooltip": "Where the clip is saved below ComfyUI's output folder. It is not part of what is paid: the same "
        "clip under another prefix costs nothing again.",
    },
)

_SPEC: dict[str, tuple[str, dict[str, Any]]] = {
    "prompt": (
        "STRING",
        {
            "multiline": True,
            "default": "",
            "tooltip": "What the video shows. May be empty when a storyboard is connected: its shots speak then.",
        },
    ),
    "generate_audio": ("BOOLEAN", {"tooltip": "Let Kling make sound as well. It can change the price."}),
    "cfg_scale": ("FLOAT", {"tooltip": "How closely the video follows the prompt: 0 freely, 1 closely."}),
    "duration": (
        "INT",
        {"tooltip": "Length of the video in seconds. A connected storyboard sets it instead: the sum of its shots."},
    ),
    "aspect_ratio": ("COMBO", {"tooltip": "Width to height of the video."}),
    "start_image": (
        "IMAGE",
        {"tooltip": "The still that the video begins with; it sets the aspect ratio. One still, not a batch."},
    ),
    "end_image": (
        "IMAGE",
        {"tooltip": "The still that the video ends with. One still, tier pro or 4k only."},
    ),
    "elements": (
        ELEMENTS,
        {"tooltip": f"Characters or objects that the video keeps, from Kling Element. {MAX_ELEMENTS} at most."},
    ),
    "negative_prompt": (
        "STRING",
        {"multiline": True, "default": "", "tooltip": "What the video should not show. May be empty."},
    ),
    "storyboard": (
        STORYBOARD,
        {"tooltip": "Shots with a length and a prompt each, from Kling Storyboard or Kling Shot. Sets the duration."},
    ),
    "shot_type": (
        "COMBO",
        {"tooltip": "customize: your shots as they are. intelligent: Kling cuts by itself (tier standard only)."},
    ),
    "start_image_url": (
        "STRING",
        {
            "default": "",
            "tooltip": "A public https address of the start still, in place of start_image. It is passed on untouched.",
        },
    ),
    "variation": (
        "INT",
        {
            "default": 0,
            "min": 0,
            "max": MAX_VARIATION,
            "control_after_generate": True,
            "tooltip": "The same inputs with the same variation are one clip, paid once. Another number is a new, "
            "paid take.",
        },
    ),
    "rehearsal": (
        "BOOLEAN",
        {
            "default": False,
            "tooltip": "A free stand-in, made on this machine and marked REHEARSAL, instead of a paid generation. "
            "Needs no account.",
        },
    ),
    "filename_prefix": FILENAME_PREFIX,
    "request_id": (
        "STRING",
        {
            "default": "",
            "tooltip": "Leave empty. Takes an existing request of your account as the result of these inputs; nothing "
            "is submitted. The way out when the answer to a submission was lost.",
        },
    ),
}


def text_to_video() -> dict[str, dict[str, Any]]:
    required = ("prompt", "tier", "duration", "aspect_ratio", "generate_audio", "cfg_scale")
    optional = ("negative_prompt", "storyboard", "shot_type", *_COMMON)
    return _input_types("text-to-video", "pro", required, optional)


def image_to_video() -> dict[str, dict[str, Any]]:
    required = ("prompt", "tier", "duration", "generate_audio", "cfg_scale")
    optional = (
        "start_image",
        "end_image",
        "elements",
        "negative_prompt",
        "storyboard",
        "start_image_url",
        *_COMMON,
    )
    return _input_types("image-to-video", "standard", required, optional)


_COMMON = ("variation", "rehearsal", "filename_prefix", "request_id")


def _input_types(
    task: Task, tier: str, required: tuple[str, ...], optional: tuple[str, ...]
) -> dict[str, dict[str, Any]]:
    specs = {name: _spec(task, tier, name) for name in (*required, *optional)} | {"tier": _tier(task, tier)}
    return {
        "required": {name: specs[name] for name in required},
        "optional": {name: specs[name] for name in optional},
        "hidden": dict(HIDDEN),
    }


def _spec(task: Task, tier: str, name: str) -> tuple[Any, dict[str, Any]] | None:
    """An input as ComfyUI declares it; default, limits and choices are those of the field it fills."""
    if name not in _SPEC:
        return None
    kind, options = _SPEC[name]
    for key, field in ENDPOINTS[task, tier].fields.items():
        if name in (key, field.input) and field.default is not None:
            return (list(choices(task, key)) if kind == "COMBO" else kind), _limits(field) | options
    return kind, dict(options)


def _limits(field: Field) -> dict[str, Any]:
    limits = {"default": field.default, "min": field.low, "max": field.high, "step": field.step}
    return {name: limit for name, limit in limits.items() if limit is not None}


def _tier(task: Task, default: str) -> tuple[list[str], dict[str, Any]]:
    only = {
        "text-to-video": f"shot_type intelligent needs {_or(tiers_with('text-to-video', 'shot_type', 'intelligent'))}.",
        "image-to-video": f"end_image needs {_or(tiers_with('image-to-video', 'end_image_url'))}.",
    }
    return list(TIERS), {
        "default": default,
        "tooltip": f"standard, pro or 4k: more detail at a higher price. {only[task]}",
    }


def _or(names: list[str]) -> str:
    return " or ".join(names)


def known(value: Any) -> Any:
    """A value as VALIDATE_INPUTS gets it: ComfyUI passes None for an input whose value only the run will tell."""
    return UNKNOWN if value is None else value


def refusal(*rules: Callable[[], object]) -> bool | str:
    """What VALIDATE_INPUTS returns: True, or the sentence of the first rule that refuses."""
    try:
        for rule in rules:
            rule()
    except InputError as error:
        return str(error)
    return True
