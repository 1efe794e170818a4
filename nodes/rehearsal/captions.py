"""What is written over a shot: its number and prompt, the settings, the elements, and REHEARSAL."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from .fonts import Face, Type
from .plan import Picture, Plan, Remote

AMBER = (255, 191, 60)
INK = (24, 20, 14)
WHITE = (255, 255, 255)
# Prompts are set in the largest of these sizes that fits its number of lines, in 720ths of the short side.
PROMPT_SIZES = ((36, 2), (30, 3), (25, 4), (20, 6))
MARGIN = 44
NEVER_FIRST = "、。，．！？）」』】"  # on a line


def caption(plan: Plan, index: int, faces: Sequence[Face] | None = None) -> Image.Image:
    """The RGBA layer of one shot, as large as the picture.

    faces: None takes the system's.
    """
    width, height = plan.size
    unit = min(plan.size) / 720
    shot = plan.shots[index]
    margin = round(MARGIN * unit)
    small = Type(round(15 * unit), plan.note, faces)
    label = Type(round(23 * unit), "·")
    prompt, lines = _fitted(shot.prompt, width - 2 * margin, unit, faces)
    leading = round(prompt.size * 1.32)

    note_line = height - round(46 * unit)
    prompt_foot = note_line - round(36 * unit)
    label_line = prompt_foot - leading * len(lines) - round(14 * unit)
    layer = _shade(plan.size, round(label_line - 140 * unit))

    text = Image.new("RGBA", plan.size)
    draw = ImageDraw.Draw(text)
    count = f"{index + 1}/{len(plan.shots)} · {shot.seconds}s"
    chip = (margin, label_line - 28 * unit, margin + label.width(count) + 24 * unit, label_line + 9 * unit)
    draw.rounded_rectangle(chip, round(8 * unit), fill=AMBER)
    label.draw(draw, margin + 12 * unit, label_line - round(unit), count, INK)
    for row, line in enumerate(lines):
        baseline = prompt_foot - leading * (len(lines) - 1 - row)
        prompt.draw(draw, margin, baseline, line, WHITE)
    note = small.fits(small.legible(plan.note), width - 2 * margin - round(150 * unit))
    small.draw(draw, margin, note_line, note, (*WHITE, 190))
    shadow = Image.new("RGBA", plan.size)
    shadow.putalpha(text.getchannel("A").filter(ImageFilter.GaussianBlur(5 * unit)))
    layer.alpha_composite(shadow)
    layer.alpha_composite(text)

    _add_elements(layer, plan, unit)
    _add_ribbon(layer, unit)
    return layer


def placeholder(remote: Remote, size: tuple[int, int]) -> Image.Image:
    """A card that stands for a picture which was not fetched, naming its host and file."""
    width, height = size
    unit = max(min(size) / 720, 0.34)
    card = Image.new("RGB", size, (44, 50, 60))
    draw = ImageDraw.Draw(card)
    step = max(round(48 * unit), 8)
    for offset in range(-height, width, step * 2):
        draw.polygon(
            ((offset, height), (offset + step, height), (offset + step + height, 0), (offset + height, 0)),
            (49, 56, 67),
        )
    address = urlsplit(remote.url)
    rows = (
        (address.hostname or "", 44, WHITE),
        (address.path.rpartition("/")[2], 28, (170, 180, 194)),
        ("not fetched in a rehearsal", 20, (130, 140, 154)),
    )
    for row, (text, points, colour) in enumerate(rows):
        kind = Type(round(points * unit), text)
        line = kind.fits(kind.legible(text), width * 0.86)
        baseline = height / 2 + (row * 46 - 40) * unit
        kind.draw(draw, (width - kind.width(line)) / 2, baseline, line, colour)
    return card


def _fitted(text: str, width: float, unit: float, faces: Sequence[Face] | None) -> tuple[Type, list[str]]:
    for points, most in PROMPT_SIZES:
        kind = Type(round(points * unit), text, faces)
        lines = _wrapped(kind, kind.legible(text), width)
        if len(lines) <= most:
            return kind, lines
    return kind, [*lines[: most - 1], kind.fits(" ".join(lines[most - 1 :]), width)]


def _wrapped(kind: Type, text: str, width: float) -> list[str]:
    """Lines broken at spaces, and inside a word that is longer than a line or has no spaces by its script."""
    lines: list[str] = []
    for word in text.split():
        if lines and kind.width(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        elif kind.width(word) <= width:
            lines.append(word)
        else:
            lines.append("")
            for character in word:
                if kind.width(lines[-1] + character) > width and character not in NEVER_FIRST:
                    lines.append("")
                lines[-1] += character
    return lines


def _shade(size: tuple[int, int], top: int) -> Image.Image:
    """A layer that darkens from `top` to the foot, so that white text reads on any picture."""
    width, height = size
    slope = np.clip((np.arange(height) - top) / (height - top), 0, 1)
    alpha = (220 * np.sin(slope * np.pi / 2) ** 1.4).astype(np.uint8)
    layer = Image.new("RGBA", size)
    layer.putalpha(Image.fromarray(np.repeat(alpha[:, None], width, axis=1)))
    return layer


def _add_elements(layer: Image.Image, plan: Plan, unit: float) -> None:
    side, gap, margin = round(118 * unit), round(14 * unit), round(MARGIN * unit * 0.8)
    for index, pictures in enumerate(plan.elements):
        left = margin + index * (side + gap)
        _inset(layer, pictures[0] if pictures else Remote(""), left, margin, side, unit)
        thumb = (side - 2 * (gap // 2)) // 3
        for place, picture in enumerate(pictures[1:4]):
            _inset(layer, picture, left + place * (thumb + gap // 2), margin + side + gap // 2, thumb, unit * 0.6)


def _inset(layer: Image.Image, picture: Picture, left: int, top: int, side: int, unit: float) -> None:
    image = placeholder(picture, (side, side)) if isinstance(picture, Remote) else picture
    border = max(round(3 * unit), 1)
    shape = Image.new("L", (side * 2, side * 2))
    ImageDraw.Draw(shape).rounded_rectangle((0, 0, side * 2 - 1, side * 2 - 1), side // 5, fill=255)
    outer = shape.resize((side, side), Image.Resampling.LANCZOS)
    inner = outer.resize((side - 2 * border, side - 2 * border), Image.Resampling.LANCZOS)
    spread = round(8 * unit)
    shadow = Image.new("L", (side + 4 * spread, side + 4 * spread))
    shadow.paste(120, (2 * spread, 2 * spread), outer)
    shadow = shadow.filter(ImageFilter.GaussianBlur(spread * 0.8))
    cast = Image.new("RGBA", shadow.size, (0, 0, 0, 0))
    cast.putalpha(shadow)
    layer.alpha_composite(cast, (left - 2 * spread, top - 2 * spread))
    layer.paste(WHITE, (left, top), outer)
    layer.paste(ImageOps.fit(image, inner.size, Image.Resampling.LANCZOS), (left + border, top + border), inner)


def _add_ribbon(layer: Image.Image, unit: float) -> None:
    """A diagonal band across the upper right corner."""
    kind = Type(round(27 * unit))
    text = "R E H E A R S A L"
    length, band = round(460 * unit), round(50 * unit)
    strip = Image.new("RGBA", (length, band), (*AMBER, 240))
    draw = ImageDraw.Draw(strip)
    rim = max(round(2 * unit), 1)
    for edge in (round(4 * unit), band - round(4 * unit) - rim):
        draw.rectangle((0, edge, length, edge + rim - 1), fill=(*INK, 90))
    kind.draw(draw, (length - kind.width(text)) / 2, band / 2 + kind.size * 0.36, text, INK)
    turned = strip.rotate(-45, Image.Resampling.BICUBIC, expand=True)
    centre = (layer.width - round(112 * unit), round(112 * unit))
    corner = Image.new("RGBA", layer.size)
    corner.paste(turned, (centre[0] - turned.width // 2, centre[1] - turned.height // 2))
    layer.alpha_composite(corner)
