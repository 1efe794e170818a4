"""A Kling request: which endpoint, and a body whose media are not yet URLs.

The rules here are asked twice: when a prompt is queued, with what the editor
knows, and when the node runs, with everything. At queue time a linked input
is UNKNOWN, and a rule that needs it says nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ..errors import InputError
from ..media.types import Clip, Link, Still
from . import storyboard as boards
from .endpoints import ENDPOINTS, MAX_ELEMENTS, TIERS, Endpoint, Field, Task, tiers_with

UNKNOWN: Any = object()
MAX_VARIATION = 2147483647
REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


@dataclass(frozen=True)
class Element:
    """A character or object that the video keeps. At least one of the three is there."""

    frontal: Still | None = None
    references: tuple[Still, ...] = ()
    video: Clip | Link | None = None


@dataclass(frozen=True)
class Request:
    """body: JSON, but with Still, Clip and Link where RunComfy wants a URL."""

    endpoint: Endpoint
    body: dict[str, Any]

    @property
    def seconds(self) -> int:
        return self.body["duration"]

    @property
    def audio(self) -> bool:
        return self.body["sound" if "sound" in self.body else "generate_audio"]


def build(task: Task, tier: str, values: Mapping[str, Any]) -> Request:
    """The request for what a node was given. values: by body field, absent or None where there is none.

    Every field that has a value is in the body, defaults included: RunComfy's
    schema carries sample values of its own, so an omitted field may buy the demo clip.
    Raises InputError.
    """
    check_tier(tier)
    endpoint = ENDPOINTS[task, tier]
    check_prompt(values.get("prompt"), values.get("multi_prompt"))
    check_end_image(tier, values.get("end_image_url") is not None)
    check_shot_type(task, tier, values.get("shot_type", "customize"))
    given = dict(values)
    if shots := given.get("multi_prompt"):
        given["duration"] = boards.total(shots)
        if not (given.get("prompt") or "").strip():
            given["prompt"] = "\n".join(shot.prompt for shot in shots)
    body = {}
    for name, field in endpoint.fields.items():
        value = given.get(name)
        value = field.default if value is None else _converted(field.input or name, field, value)
        if value is not None:
            body[name] = value
        elif field.required:
            raise InputError(f"{field.input or name} is missing.")
    return Request(endpoint, body)


def _converted(name: str, field: Field, value: Any) -> Any:
    """The value as the body holds it; None where it is as good as absent. Linked values come unchecked."""
    if field.kind == "text":
        return str(value).strip() or None
    if field.kind == "boolean":
        return bool(value)
    if field.kind in ("integer", "number"):
        return _number(name, field, value)
    if field.kind == "choice":
        if value not in field.choices:
            raise InputError(f"{name} is {value!r}: choose {' or '.join(field.choices)}.")
        return value
    if field.kind == "shots":
        if len(value) > (field.high or 0):
            raise InputError(f"{name} has {len(value)} shots: {field.high} at most.")
        return [{"prompt": shot.prompt, "duration": shot.duration} for shot in value] or None
    if field.kind == "elements":
        return [_element(element) for element in check_elements(value)] or None
    return value


def _number(name: str, field: Field, value: Any) -> int | float:
    low, high = field.low or 0, field.high or 0
    whole = field.kind == "integer"
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not low <= number <= high or (whole and not number.is_integer()):
        kind = "a whole number" if whole else "a number"
        raise InputError(f"{name} is {value!r}: it must be {kind} from {low:g} to {high:g}.")
    return int(number) if whole else number


def _element(element: Element) -> dict[str, Any]:
    parts = {
        "frontal_image_url": element.frontal,
        "reference_image_urls": list(element.references),
        "video_url": element.video,
    }
    return {name: part for name, part in parts.items() if part}


def check_tier(tier: Any) -> None:
    if tier is not UNKNOWN and tier not in TIERS:
        raise InputError(f"tier is {tier!r}: choose {', '.join(TIERS)}.")


def check_prompt(prompt: Any, storyboard: Any) -> None:
    if prompt is UNKNOWN or storyboard is UNKNOWN:
        return
    if not (prompt or "").strip() and not storyboard:
        raise InputError("prompt is empty: say what the video shows, or connect a storyboard.")


def check_start(has_image: Any, start_image_url: Any) -> None:
    """has_image: whether start_image is connected; UNKNOWN counts as connected."""
    if start_image_url is UNKNOWN:
        return
    has_url = bool((start_image_url or "").strip())
    if has_image and has_url:
        raise InputError("start_image and start_image_url are both set: disconnect one or clear the other.")
    if not has_image and not has_url:
        raise InputError("start_image is missing: connect a still, or put an https address into start_image_url.")
    if has_url:
        check_url("start_image_url", start_image_url)


def check_end_image(tier: Any, has_image: Any) -> None:
    """has_image: whether end_image is connected; UNKNOWN counts as connected."""
    able = tiers_with("image-to-video", "end_image_url")
    if has_image and tier is not UNKNOWN and tier not in able:
        raise InputError(f"end_image is not available with tier {tier}: choose {' or '.join(able)}, or disconnect it.")


def check_shot_type(task: Task, tier: Any, shot_type: Any) -> None:
    if tier is UNKNOWN or shot_type is UNKNOWN:
        return
    able = tiers_with(task, "shot_type", shot_type)
    if tier not in able:
        raise InputError(
            f"shot_type {shot_type!r} is not available with tier {tier}: choose customize"
            + (f", or tier {' or '.join(able)}." if able else ".")
        )


def check_elements(elements: tuple[Element, ...]) -> tuple[Element, ...]:
    if len(elements) > MAX_ELEMENTS:
        raise InputError(f"elements holds {len(elements)} elements: {MAX_ELEMENTS} at most. Disconnect one.")
    return elements


def check_url(name: str, url: Any) -> str:
    """The URL, trimmed. Raises InputError unless it is https with a host."""
    url = str(url).strip()
    try:
        parts = urlsplit(url)
        fine = parts.scheme.lower() == "https" and bool(parts.hostname) and not re.search(r"\s", url)
    except ValueError:
        fine = False
    if not fine:
        raise InputError(f"{name} is not an https address: RunComfy fetches media from public https:// addresses only.")
    return url


def check_request_id(request_id: Any) -> str:
    """The request id, trimmed; "" for none. Raises InputError on anything that no id of RunComfy looks like."""
    if request_id is UNKNOWN:
        return ""
    request_id = str(request_id).strip()
    if request_id and not REQUEST_ID.fullmatch(request_id):
        raise InputError(
            "request_id holds characters that no request id has: paste the id alone, letters, digits, - and _, "
            "1 to 128 of them."
        )
    return request_id


def check_variation(variation: Any) -> int:
    try:
        number = int(variation)
    except (TypeError, ValueError, OverflowError):
        number = -1
    if number != variation or not 0 <= number <= MAX_VARIATION:
        raise InputError(f"variation is {variation!r}: it must be a whole number from 0 to {MAX_VARIATION}.")
    return number
