"""A plan as a film: H.264 and AAC in an MP4, exactly as long as its shots."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageOps

from .captions import AMBER, MARGIN, WHITE, caption, placeholder, timecode
from .fonts import Type
from .plan import Picture, Plan, Remote
from .scenery import scenery
from .sound import RATE, soundtrack

FPS = 24
SLACK = 1.3  # how much larger than the frame a ground is, so that the camera can move without softness
DRIFT = 0.011  # of the frame, a second
END_HELD_SECONDS = 0.5


class Move(NamedTuple):
    """How a shot is framed: its widest view as a part of the ground, and where the camera drifts."""

    view: float
    zoom: float
    right: float
    down: float


MOVES = (
    Move(1.0, 1.0, 0.0, 0.0),
    Move(0.84, 0.2, 1.0, 0.0),
    Move(0.88, -1.0, 0.0, 0.0),
    Move(0.84, 0.3, -0.8, 0.2),
    Move(0.86, 0.3, 0.0, -1.0),
)


def render(plan: Plan, path: Path) -> None:
    """Write the animatic of `plan` to `path`: yuv420p at 24 frames a second, index first."""
    import av

    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        video = container.add_stream(
            "libx264", rate=FPS, options={"preset": "superfast", "crf": "21", "bf": "0"}
        )
        video.width, video.height = plan.size
        video.pix_fmt = "yuv420p"
        video.thread_count = 0
        if plan.audio:
            audio = container.add_stream("aac", rate=RATE, layout="mono")
        for number, picture in enumerate(frames(plan)):
            frame = av.VideoFrame.from_image(picture)
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if plan.audio:
            samples = soundtrack(plan.seconds, cuts(plan))
            sound = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
            sound.sample_rate, sound.pts, sound.time_base = RATE, 0, Fraction(1, RATE)
            container.mux(audio.encode(sound))
            container.mux(audio.encode(None))


def cuts(plan: Plan) -> list[int]:
    """Where one shot ends and the next begins, in seconds from the start."""
    return list(itertools.accumulate(shot.seconds for shot in plan.shots))[:-1]


def frames(plan: Plan) -> Iterator[Image.Image]:
    """Every frame in order, RGB at plan.size."""
    clock = Type(round(15 * min(plan.size) / 720))
    start = _ground(plan.start, plan) if plan.start else None
    end = _ground(plan.end, plan) if plan.end else None
    number = 0
    for index, shot in enumerate(plan.shots):
        ground = start or _ground(scenery(f"{index} {shot.prompt}", _grown(plan.size)), plan)
        layer = caption(plan, index)
        parts = [(layer.crop(box), box[:2]) for box in _inked(layer)]
        for step in range(shot.seconds * FPS):
            box = _camera(MOVES[index % len(MOVES)], ground.size, step / FPS, shot.seconds)
            frame = ground.resize(plan.size, Image.Resampling.BILINEAR, box)
            if end and (share := _nearness_to_end(plan, number / FPS)):
                frame = Image.blend(frame, end.resize(plan.size, Image.Resampling.BILINEAR, box), share)
            for part, corner in parts:
                frame.paste(part, corner, part)
            _add_progress(frame, plan, number, clock)
            yield frame
            number += 1


def _grown(size: tuple[int, int]) -> tuple[int, int]:
    return round(size[0] * SLACK), round(size[1] * SLACK)


def _ground(picture: Picture, plan: Plan) -> Image.Image:
    if isinstance(picture, Remote):
        picture = placeholder(picture, plan.size)
    return ImageOps.fit(picture, _grown(plan.size), Image.Resampling.LANCZOS)


def _camera(
    move: Move, ground: tuple[int, int], seconds: float, length: int
) -> tuple[float, float, float, float]:
    """The part of the ground in view, as a box in its pixels."""
    width, height = ground
    travel = DRIFT * (seconds - (0 if move.zoom > 0 else length) * abs(move.zoom >= 1 or move.zoom < 0))
    view = max(min(move.view - move.zoom * travel, 1.0), 0.5)
    slide = DRIFT * (seconds - length / 2)
    x = (1 - view) / 2 + move.right * slide
    y = (1 - view) / 2 + move.down * slide
    x, y = (min(max(place, 0.0), 1 - view) for place in (x, y))
    return x * width, y * height, (x + view) * width, (y + view) * height


def _nearness_to_end(plan: Plan, seconds: float) -> float:
    """0 until the middle of the last shot, then smoothly to 1 shortly before the film ends."""
    last = plan.shots[-1].seconds
    opens = plan.seconds - last * 0.6
    share = (seconds - opens) / (plan.seconds - END_HELD_SECONDS - opens)
    share = min(max(share, 0.0), 1.0)
    return share * share * (3 - 2 * share)


def _inked(layer: Image.Image) -> list[tuple[int, int, int, int]]:
    """The upper and the lower part of a layer, each cut to what is drawn there: the rest need not be mixed."""
    middle = layer.height // 2
    boxes = []
    for top, foot in ((0, middle), (middle, layer.height)):
        if box := layer.getchannel("A").crop((0, top, layer.width, foot)).getbbox():
            boxes.append((box[0], box[1] + top, box[2], box[3] + top))
    return boxes


def _add_progress(frame: Image.Image, plan: Plan, number: int, clock: Type) -> None:
    """The time, and a bar with a segment for every shot."""
    width, height = frame.size
    unit = min(frame.size) / 720
    margin, gap, thick = round(MARGIN * unit), round(4 * unit), max(round(4 * unit), 2)
    top = height - round(26 * unit)
    draw = ImageDraw.Draw(frame)
    scale = (width - 2 * margin) / plan.seconds
    now = margin + (number + 1) / FPS * scale
    for begin, shot in zip([0, *cuts(plan)], plan.shots):
        left, right = margin + begin * scale, margin + (begin + shot.seconds) * scale - gap
        draw.rectangle((left, top, right, top + thick - 1), fill=(128, 128, 128))
        if now > left:
            draw.rectangle((left, top, min(now, right), top + thick - 1), fill=AMBER)
    text = timecode(number / FPS, FPS)
    clock.draw(draw, width - margin - clock.width(text), height - round(46 * unit), text, WHITE)
