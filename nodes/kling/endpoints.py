"""What the Kling 3.0 endpoints of RunComfy accept: one row a field, one row an endpoint.

The node inputs, the validation of a request and the help derive from these
tables. Source: the published schemas, as RunComfy's model pages give them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

Task = Literal["text-to-video", "image-to-video"]
Kind = Literal["text", "integer", "number", "boolean", "choice", "media", "shots", "elements"]

TIERS = ("standard", "pro", "4k")
MAX_ELEMENTS = 3


@dataclass(frozen=True)
class Field:
    """One field of a request body.

    input: the node input that fills it, where its name differs from the field's.
    """

    kind: Kind
    input: str = ""
    default: Any = None
    low: float | None = None
    high: float | None = None
    step: float | None = None
    choices: tuple[str, ...] = ()
    required: bool = False


@dataclass(frozen=True)
class Endpoint:
    """One model of RunComfy's catalogue, with the fields of its body in published order."""

    task: Task
    tier: str
    fields: Mapping[str, Field]

    @property
    def model_id(self) -> str:
        return f"kling/kling-3.0/{self.tier}/{self.task}"


SHOT_DURATION = Field("integer", default=5, low=3, high=15)
CUSTOMIZE_ONLY = Field("choice", default="customize", choices=("customize",))

TEXT_TO_VIDEO: dict[str, Field] = {
    "prompt": Field("text", required=True),
    "negative_prompt": Field("text"),
    "duration": Field("integer", default=5, low=3, high=15),
    "aspect_ratio": Field("choice", default="16:9", choices=("16:9", "9:16", "1:1")),
    "cfg_scale": Field("number", default=0.5, low=0, high=1, step=0.01),
    "sound": Field("boolean", input="generate_audio", default=True),
    "multi_prompt": Field("shots", input="storyboard", high=20),
    "shot_type": CUSTOMIZE_ONLY,
}
IMAGE_TO_VIDEO: dict[str, Field] = {
    "prompt": Field("text", required=True),
    "start_image_url": Field("media", input="start_image", required=True),
    "duration": Field("integer", default=10, low=3, high=15),
    "generate_audio": Field("boolean", default=True),
    "elements": Field("elements", high=MAX_ELEMENTS),
    "multi_prompt": Field("shots", input="storyboard", high=20),
    "shot_type": CUSTOMIZE_ONLY,
    "negative_prompt": Field("text"),
    "cfg_scale": Field("number", default=0.5, low=0, high=1, step=0.01),
}
# The contract's default is customize although the standard tier's own is intelligent.
INTELLIGENT_TOO = {"shot_type": replace(CUSTOMIZE_ONLY, choices=("customize", "intelligent"))}
END_IMAGE = {"end_image_url": Field("media", input="end_image")}

ENDPOINTS: Mapping[tuple[Task, str], Endpoint] = MappingProxyType(
    {
        (endpoint.task, endpoint.tier): endpoint
        for endpoint in (
            Endpoint("text-to-video", "standard", TEXT_TO_VIDEO | INTELLIGENT_TOO),
            Endpoint("text-to-video", "pro", TEXT_TO_VIDEO),
            Endpoint("text-to-video", "4k", TEXT_TO_VIDEO),
            Endpoint("image-to-video", "standard", IMAGE_TO_VIDEO),
            Endpoint("image-to-video", "pro", IMAGE_TO_VIDEO | END_IMAGE),
            Endpoint("image-to-video", "4k", IMAGE_TO_VIDEO | END_IMAGE),
        )
    }
)


def choices(task: Task, field: str) -> tuple[str, ...]:
    """Every choice of a field over the tiers of a task, each once, in published order."""
    rows = [ENDPOINTS[task, tier].fields[field] for tier in TIERS]
    return tuple(dict.fromkeys(choice for row in rows for choice in row.choices))


def tiers_with(task: Task, field: str, choice: str | None = None) -> list[str]:
    """The tiers whose endpoint has a field, or allows a choice of it."""
    return [
        tier
        for tier in TIERS
        if (row := ENDPOINTS[task, tier].fields.get(field)) and (choice is None or choice in row.choices)
    ]
