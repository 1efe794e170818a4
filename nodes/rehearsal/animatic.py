"""A plan as a film: H.264 and AAC in an MP4, exactly as long as its shots."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageOps

from .captions import AMBER, MARGIN, WHITE, caption, placeholder
from .fonts import Type
from .plan import Picture, Plan, Remote
from .scenery import scenery
from .sound import RATE, soundtrack

FPS = 24
DRIFT = 0.011  # of the frame, a second
END_HELD_SECONDS = 0.5
BT709, LIMITED = 1, 1  # as H.264 numbers the colours that players assume for high definition
AHEAD = 6  # frames drawn while the encoder is busy


class Move(NamedTuple):
    """How a shot is framed: the part of the ground in view at first, and which way the camera drifts."""

    view: float
    nearer: float
    right: float = 0.0
    down: float = 0.0


MOVES = (
    Move(1.0, 1.0),
    Move(0.86, 0.2, right=1.0),
    Move(0.83, -1.0),
    Move(0.86, 0.2, right=-0.9),
    Move(0.84, 0.3, down=-0.9),
)


def render(plan: Plan, path: Path) -> None:
    """Write the animatic of `plan` to `path`: yuv420p at 24 frames a second, index first."""
    import av

    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        video = container.add_stream("libx264", rate=FPS, options={"preset": "superfast", "crf": "24", "bf": "0"})
        video.width, video.height = plan.size
        video.pix_fmt = "yuv420p"
        video.thread_count = 0
        video.codec_context.colorspace = BT709
        video.codec_context.color_primaries = BT709
        video.codec_context.color_trc = BT709
        video.codec_context.color_range = LIMITED
        if plan.audio:
            audio = container.add_stream("aac", rate=RATE, layout="mono")
        for number, picture in enumerate(frames(plan)):
            frame = av.VideoFrame.from_image(picture).reformat(format="yuv420p", dst_colorspace="ITU709")
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
    ahead: deque[Future[Image.Image]] = deque()
    with ThreadPoolExecutor(2) as pool:
        for drawing in _drawings(plan):
            ahead.append(pool.submit(drawing))
            if len(ahead) > AHEAD:
                yield ahead.popleft().result()
        for frame in ahead:
            yield frame.result()


def _drawings(plan: Plan) -> Iterator[Callable[[], Image.Image]]:
    start, end = _ground(plan.start, plan.size), _ground(plan.end, plan.size)
    opening = plan.shots[0].prompt
    number = 0
    for index, shot in enumerate(plan.shots):
        ground = start or scenery(opening, index, plan.size)
        layer = caption(plan, index)
        parts = [(layer.crop(box), box[:2]) for box in _inked(layer)]
        for step in range(shot.seconds * FPS):
            box = _view(MOVES[index % len(MOVES)], step / FPS, shot.seconds, plan.size)
            yield partial(_drawn, plan, ground, end, box, parts, number)
            number += 1


def _drawn(
    plan: Plan,
    ground: Image.Image,
    end: Image.Image | None,
    box: tuple[float, float, float, float],
    parts: list[tuple[Image.Image, tuple[int, int]]],
    number: int,
) -> Image.Image:
    frame = ground.resize(plan.size, Image.Resampling.BILINEAR, box)
    if end and (share := _nearness_to_end(plan, number / FPS)):
        frame = Image.blend(frame, end.resize(plan.size, Image.Resampling.BILINEAR, box), share)
    for part, corner in parts:
        frame.paste(part, corner, part)
    _add_progress(frame, plan, number)
    return frame


def _ground(picture: Picture | None, size: tuple[int, int]) -> Image.Image | None:
    if isinstance(picture, Remote):
        return placeholder(picture, size)
    return picture and ImageOps.fit(picture, size, Image.Resampling.LANCZOS)


def _view(move: Move, seconds: float, length: int, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """The part of the ground in view, as a box in its pixels."""
    width, height = size
    view = min(max(move.view - move.nearer * DRIFT * seconds, 0.5), 1.0)
    slide = DRIFT * (seconds - length / 2)
    room = (1 - view) / 2
    left = room + min(max(move.right * slide, -room), room)
    top = room + min(max(move.down * slide, -room), room)
    return left * width, top * height, (left + view) * width, (top + view) * height


def _nearness_to_end(plan: Plan, seconds: float) -> float:
    """0 until some way into the last shot, then smoothly to 1 shortly before the film ends."""
    last = plan.shots[-1].seconds
    opens = plan.seconds - last * 0.6
    share = (seconds - opens) / (plan.seconds - END_HELD_SECONDS - opens)
    share = min(max(share, 0.0), 1.0)
    return share * share * (3 - 2 * share)


def _inked(layer: Image.Image) -> list[tuple[int, int, int, int]]:
    """The upper and the lower part of a layer, each cut to what is drawn there, the only part to mix."""
    middle = layer.height // 2
    boxes = []
    for top, foot in ((0, middle), (middle, layer.height)):
        if box := layer.getchannel("A").crop((0, top, layer.width, foot)).getbbox():
            boxes.append((box[0], box[1] + top, box[2], box[3] + top))
    return boxes


def _add_progress(frame: Image.Image, plan: Plan, number: int) -> None:
    """The time in minutes, seconds and frames, and a bar with a segment for every shot."""
    width, height = frame.size
    unit = min(frame.size) / 720
    margin, gap, thick = round(MARGIN * unit), round(4 * unit), max(round(4 * unit), 2)
    top = height - round(26 * unit)
    draw = ImageDraw.Draw(frame)
    scale = (width - 2 * margin) / plan.seconds
    now = margin + (number + 1) / FPS * scale
    for begin, shot in zip([0, *cuts(plan)], plan.shots, strict=True):
        left = margin + begin * scale + (gap if begin else 0)
        right = margin + (begin + shot.seconds) * scale
        draw.rectangle((left, top, right, top + thick - 1), fill=(128, 128, 128))
        if now > left:
            draw.rectangle((left, top, min(now, right), top + thick - 1), fill=AMBER)
    clock = Type(round(15 * unit))
    text = f"{number // (60 * FPS):02}:{number // FPS % 60:02}:{number % FPS:02}"
    clock.draw(draw, width - margin - clock.width(text), height - round(46 * unit), text, WHITE)
