"""What a body asks to see, ready to draw: its media opened, its shots and size known."""

from __future__ import annotations

import base64
import io
import urllib.request
from dataclasses import dataclass
from typing import Any

from PIL import Image

SHORT_SIDE = 720  # of every tier: a rehearsal is to be quick, and 4k of it shows no more
LONG_SIDE = 1728
FLATTEST = 4.0
REMOTE_BYTES = 100 * 1024 * 1024
REMOTE_SECONDS = 30


@dataclass(frozen=True)
class Shot:
    prompt: str
    seconds: int


@dataclass(frozen=True)
class Remote:
    """A picture that was not fetched."""

    url: str


Picture = Image.Image | Remote


@dataclass(frozen=True, eq=False)
class Plan:
    """One animatic.

    size: width and height in pixels, both even.
    start, end: the stills it moves from and towards; without a start a scenery is painted.
    elements: the pictures of each element.
    note: the settings, as small print.
    """

    shots: tuple[Shot, ...]
    size: tuple[int, int]
    audio: bool
    note: str
    start: Picture | None = None
    end: Picture | None = None
    elements: tuple[tuple[Picture, ...], ...] = ()

    @property
    def seconds(self) -> int:
        return sum(shot.seconds for shot in self.shots)


def plan(model_id: str, body: dict[str, Any], *, take: int = 1, fetch_remote: bool = False) -> Plan:
    """The animatic of a valid body. Raises ValueError naming the field whose medium cannot be read."""
    from_image = "start_image_url" in body
    duration = body.get("duration", 10 if from_image else 5)
    shots = [Shot(shot["prompt"], shot.get("duration", 5)) for shot in body.get("multi_prompt", [])]

    def opened(url: str, field: str) -> Picture:
        if not fetch_remote and not url.startswith("data:"):
            return Remote(url)
        try:
            return _still(_content(url), video=field.endswith("video_url"))
        except Exception as problem:
            raise ValueError(f"{field} cannot be read: {problem}") from problem

    stills = {end: opened(body[field], field) for end in ("start", "end") if (field := f"{end}_image_url") in body}
    elements = []
    for index, element in enumerate(body.get("elements", [])):
        urls = [(key, element[key]) for key in ("frontal_image_url", "video_url") if key in element]
        urls += [("reference_image_urls", url) for url in element.get("reference_image_urls", [])]
        elements.append(tuple(opened(url, f"elements[{index}].{field}") for field, url in urls))

    return Plan(
        shots=tuple(shots) or (Shot(body["prompt"], duration),),
        size=_size(stills.get("start"), body.get("aspect_ratio", "16:9")),
        audio=body.get("generate_audio" if from_image else "sound", True),
        note=_note(model_id, body, take),
        elements=tuple(elements),
        **stills,
    )


def _size(start: Picture | None, aspect_ratio: str) -> tuple[int, int]:
    if isinstance(start, Image.Image):
        ratio = start.width / start.height
    else:
        width, height = aspect_ratio.split(":")
        ratio = int(width) / int(height)
    flat = min(max(ratio, 1 / ratio), FLATTEST)
    long = min(SHORT_SIDE * flat, LONG_SIDE)
    sides = [round(side / 2) * 2 for side in (long, long / flat)]
    return (sides[0], sides[1]) if ratio >= 1 else (sides[1], sides[0])


def _note(model_id: str, body: dict[str, Any], take: int) -> str:
    _, _, tier, kind = model_id.split("/")
    parts = [f"Kling 3.0 {tier}", kind.replace("-", " ")]
    parts += [f"cfg {body['cfg_scale']:g}"] if "cfg_scale" in body else []
    parts += [f"take {take}"] if take > 1 else []
    parts += [f"not: {' '.join(body['negative_prompt'].split())}"] if body.get("negative_prompt") else []
    return "  ·  ".join(parts)


def _content(url: str) -> bytes:
    if url.startswith("data:"):
        return base64.b64decode(url.partition(",")[2])
    with urllib.request.urlopen(url, timeout=REMOTE_SECONDS) as answer:
        content: bytes = answer.read(REMOTE_BYTES + 1)
    if len(content) > REMOTE_BYTES:
        raise ValueError(f"it is larger than {REMOTE_BYTES} bytes")
    return content


def _still(content: bytes, *, video: bool) -> Image.Image:
    if video:
        import av

        with av.open(io.BytesIO(content)) as container:
            return next(container.decode(video=0)).to_image()
    picture: Image.Image = Image.open(io.BytesIO(content))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        ground = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(ground, picture)
    return picture.convert("RGB")
