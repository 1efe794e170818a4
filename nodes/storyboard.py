"""A storyboard written as one text."""

from __future__ import annotations

from typing import Any

from .inputs import CATEGORY, STORYBOARD, known, refusal
from .kling import storyboard as boards
from .kling.request import UNKNOWN


class Storyboard:
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "A storyboard: shots with a length and a prompt each, 3 to 15 s together. A shot begins with its length in "
        "brackets at the start of a line: [5s] Wide shot of terraced hills at dusk."
    )
    SEARCH_ALIASES = ("kling", "runcomfy", "storyboard", "shots", "multi prompt", "script")
    FUNCTION = "run"
    RETURN_TYPES = (STORYBOARD, "INT")
    RETURN_NAMES = ("storyboard", "duration")
    OUTPUT_TOOLTIPS = (
        "The shots, for Kling Text to Video and Kling Image to Video.",
        "The length of all shots together, in seconds.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "script": (
                    "STRING",
                    {
                        "multiline": True,
                        "default": "[5s] Wide shot of terraced hills at dusk.\n[3s] Close on two glasses touching.",
                        "tooltip": "One shot after the other, each beginning with its length in brackets at the start "
                        "of a line. 3 to 15 s a shot, 3 to 15 s together.",
                    },
                )
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, script: Any = UNKNOWN) -> bool | str:
        return refusal(lambda: known(script) is UNKNOWN or boards.parse(script))

    async def run(self, script: str) -> tuple[boards.Storyboard, int]:
        shots = boards.parse(script)
        return shots, boards.total(shots)
