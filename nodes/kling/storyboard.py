"""A storyboard: shots with a length and a prompt each, and the plain-text script that holds them.

[5s] Wide shot of terraced hills at dusk.
[3s] Close on two glasses touching.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import InputError
from .endpoints import SHOT_DURATION, TEXT_TO_VIDEO

SHOT_START = re.compile(r"^[^\S\n]*\[\s*([0-9]+(?:\.[0-9]+)?)\s*[sS]\s*\]", re.MULTILINE)
LOW, HIGH = int(SHOT_DURATION.low or 0), int(SHOT_DURATION.high or 0)
TOTAL_LOW, TOTAL_HIGH = int(TEXT_TO_VIDEO["duration"].low or 0), int(TEXT_TO_VIDEO["duration"].high or 0)


@dataclass(frozen=True)
class Shot:
    """prompt: what the shot shows. duration: whole seconds, 3–15."""

    prompt: str
    duration: int


Storyboard = tuple[Shot, ...]


def shot(prompt: str, duration: int, where: str) -> Shot:
    """A valid shot; `where` names it in the message. Raises InputError."""
    prompt = prompt.strip()
    if not prompt:
        raise InputError(f"{where} has no prompt: say what it shows.")
    if not LOW <= duration <= HIGH:
        raise InputError(f"{where} lasts {duration} s: a shot lasts {LOW} to {HIGH} s.")
    return Shot(prompt, duration)


def total(storyboard: Storyboard) -> int:
    """The length of a whole storyboard in seconds. Raises InputError outside 3–15 s."""
    seconds = sum(shot.duration for shot in storyboard)
    if not TOTAL_LOW <= seconds <= TOTAL_HIGH:
        raise InputError(
            f"The storyboard lasts {seconds} s over {len(storyboard)} shots: "
            f"a whole video lasts {TOTAL_LOW} to {TOTAL_HIGH} s. Shorten or remove shots."
        )
    return seconds


def parse(script: str) -> Storyboard:
    """The shots of a script, prompts trimmed, line breaks and brackets inside them kept.

    Raises InputError that names the line of the script.
    """
    script = script.replace("\r\n", "\n").replace("\r", "\n")
    starts = list(SHOT_START.finditer(script))
    before = script[: starts[0].start()] if starts else script
    if before.strip():
        line = _line(script, len(before) - len(before.lstrip()))
        raise InputError(
            f"script, line {line}: a shot begins with its length in brackets, such as [5s], then its prompt."
        )
    if not starts:
        raise InputError("script is empty: write one shot a line, such as: [5s] Wide shot of hills at dusk.")
    shots = []
    for number, start in enumerate(starts, 1):
        end = starts[number].start() if number < len(starts) else len(script)
        where = f"script, line {_line(script, start.end())}: shot {number}"
        length = float(start[1])
        if not length.is_integer():
            raise InputError(f"{where} lasts {start[1]} s: lengths are whole seconds.")
        shots.append(shot(script[start.end() : end], int(length), where))
    storyboard = tuple(shots)
    total(storyboard)
    return storyboard


def _line(script: str, position: int) -> int:
    return script.count("\n", 0, position) + 1
