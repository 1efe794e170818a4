"""Fonts that really hold the characters of a prompt, without fontconfig.

A character goes to the first font that draws it; one that no font draws is left out, never a box.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont


class Face(NamedTuple):
    """A font file by the name it ships under, which Pillow finds in the system, and its number in there."""

    file: str
    number: int = 0


BUILT_IN = Face("")

# Han characters look different in each of these, so the prompt's own script decides which comes first.
JAPANESE = (
    Face("NotoSansCJK-Regular.ttc", 0),
    Face("NotoSansCJK-VF.ttc", 0),
    Face("/System/Library/Fonts/ヒラギノ角ゴシック W3.ttc"),
    Face("YuGothR.ttc"),
    Face("meiryo.ttc"),
    Face("msgothic.ttc"),
)
KOREAN = (
    Face("NotoSansCJK-Regular.ttc", 1),
    Face("NotoSansCJK-VF.ttc", 1),
    Face("AppleSDGothicNeo.ttc"),
    Face("malgun.ttf"),
    Face("NanumGothic.ttf"),
)
CHINESE = (
    Face("NotoSansCJK-Regular.ttc", 2),
    Face("NotoSansCJK-VF.ttc", 2),
    Face("PingFang.ttc"),
    Face("Hiragino Sans GB.ttc"),
    Face("STHeiti Light.ttc"),
    Face("msyh.ttc"),
    Face("wqy-microhei.ttc"),
    Face("DroidSansFallbackFull.ttf"),
)
OTHERS = (
    Face("DejaVuSans.ttf"),
    Face("NotoSans-Regular.ttf"),
    Face("segoeui.ttf"),
    Face("Arial Unicode.ttf"),
    Face("arial.ttf"),
    Face("seguisym.ttf"),
    Face("Nirmala.ttf"),
    Face("leelawui.ttf"),
    Face("Kohinoor.ttc"),
    Face("Thonburi.ttc"),
)

KANA = re.compile("[\u3040-\u30ff]")
HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7af]")
PROBE_SIZE = 24
NO_CHARACTER = "\U0010ffff"


def faces_for(text: str) -> tuple[Face, ...]:
    """The faces to try for a text, in order. Pillow's own comes first: Latin looks the same everywhere."""
    if KANA.search(text):
        regional = JAPANESE + KOREAN + CHINESE
    elif HANGUL.search(text):
        regional = KOREAN + CHINESE + JAPANESE
    else:
        regional = CHINESE + JAPANESE + KOREAN
    return (BUILT_IN, *regional, *OTHERS)


class Type:
    """Text set at one size in the faces that draw it.

    sample: the text to come; the face that draws most of it is tried first, so that words stay in one.
    faces: None takes those that suit the sample's script.
    """

    def __init__(self, size: int, sample: str = "", faces: Sequence[Face] | None = None):
        self.size = size
        characters = set(unicodedata.normalize("NFC", "".join(sample.split())))
        self.faces = sorted(
            faces_for(sample) if faces is None else faces,
            key=lambda face: sum(not _draws(face, character) for character in characters),
        )

    def legible(self, text: str) -> str:
        """The text on one line, without what no face draws."""
        text = unicodedata.normalize("NFC", " ".join(text.split()))
        drawn = (character for face, character in self._faced(text) if face)
        return " ".join("".join(drawn).split())

    def width(self, text: str) -> float:
        """In pixels, without kerning, so that characters are measured once."""
        return sum(_advance(face, self.size, character) for face, character in self._faced(text) if face)

    def fits(self, text: str, width: float) -> str:
        """The text, or as much of its beginning as fits with an ellipsis."""
        if self.width(text) <= width:
            return text
        room = itertools.accumulate(map(self.width, text), initial=self.width("…"))
        return text[: max(sum(used <= width for used in room) - 1, 0)].rstrip() + "…"

    def draw(self, draw: ImageDraw.ImageDraw, left: float, baseline: float, text: str, fill: tuple[int, ...]) -> None:
        for font, part in self._runs(text):
            draw.text((left, baseline), part, font=font, fill=fill, anchor="ls")
            left += font.getlength(part)

    def _faced(self, text: str) -> Iterator[tuple[Face | None, str]]:
        """Every character with its face. Spaces and marks stay with the character before them."""
        before: Face | None = None
        for character in text:
            if character == " ":
                yield before or self.faces[0], character
                continue
            mark = unicodedata.category(character).startswith("M")
            candidates = (before,) if mark and before else () if mark else self.faces
            face = next((face for face in candidates if face and _draws(face, character)), None)
            before = before if mark else face
            yield face, character

    def _runs(self, text: str) -> Iterator[tuple[ImageFont.FreeTypeFont, str]]:
        for face, pairs in itertools.groupby(self._faced(text), key=lambda pair: pair[0]):
            if face and (font := _font(face, self.size)):
                yield font, "".join(character for _, character in pairs)


@cache
def _font(face: Face, size: int) -> ImageFont.FreeTypeFont | None:
    if face == BUILT_IN:
        font = ImageFont.load_default(size)
        return font if isinstance(font, ImageFont.FreeTypeFont) else None
    if size != PROBE_SIZE:
        font_found = _font(face, PROBE_SIZE)  # one search through the folders, whatever the size
        return font_found and font_found.font_variant(size=size)
    try:
        return ImageFont.truetype(face.file, size, face.number)
    except OSError:
        return None


@cache
def _probe(face: Face) -> tuple[ImageFont.FreeTypeFont, bytes] | None:
    """A font without shaping, and what it draws for a character it lacks.

    Shaping would put a mark the font lacks on a dotted circle, which looks like a glyph.
    """
    font = _font(face, PROBE_SIZE)
    if font is None:
        return None
    plain = font.font_variant(layout_engine=ImageFont.Layout.BASIC)
    return plain, _ink(plain, NO_CHARACTER)


@lru_cache(maxsize=16384)
def _draws(face: Face, character: str) -> bool:
    probe = _probe(face)
    if probe is None:
        return False
    plain, nothing = probe
    ink = _ink(plain, character)
    return any(ink) and ink != nothing


@lru_cache(maxsize=16384)
def _advance(face: Face, size: int, character: str) -> float:
    font = _font(face, size)
    return font.getlength(character) if font else 0.0


def _ink(font: ImageFont.FreeTypeFont, character: str) -> bytes:
    picture = Image.new("L", (PROBE_SIZE * 2, PROBE_SIZE * 2))
    ImageDraw.Draw(picture).text((PROBE_SIZE // 2, PROBE_SIZE // 2), character, fill=255, font=font)
    return picture.tobytes()
