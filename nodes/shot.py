"""One shot of a storyboard; several in a row make one."""

from __future__ import annotations

from typing import Any

from .inputs import CATEGORY, STORYBOARD, known, refusal
from .kling import storyboard as boards
from .kling.endpoints import SHOT_DURATION
from .kling.request import UNKNOWN


class Shot:
    CATEGORY = CATEGORY
    DESCRIPTION = "Adds one shot to a storyboard. Connect several in a row: each comes after those before it."
    SEARCH_ALIASES = ("kling", "runcomfy", "shot", "storyboard", "multi prompt")
    FUNCTION = "run"
    RETURN_TYPES = (STORYBOARD,)
    RETURN_NAMES = ("storyboard",)
    OUTPUT_TOOLTIPS = ("The shots so far, this one last.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "prompt": (
                    "STRING",
                    {"multiline": True, "default": "", "tooltip": "What this shot shows."},
                ),
                "duration": (
                    "INT",
                    {
                        "default": SHOT_DURATION.default,
                        "min": boards.LOW,
                        "max": boards.HIGH,
                        "tooltip": "Length of this shot in seconds. All shots together last 3 to 15 s.",
                    },
                ),
            },
            "optional": {"storyboard": (STORYBOARD, {"tooltip": "The shots before this one."})},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, prompt: Any = UNKNOWN) -> bool | str:
        return refusal(lambda: known(prompt) is UNKNOWN or boards.shot(prompt, boards.LOW, "prompt: the shot"))

    async def run(self, prompt: str, duration: int, storyboard: boards.Storyboard = ()) -> tuple[boards.Storyboard]:
        return ((*storyboard, boards.shot(prompt, duration, f"Shot {len(storyboard) + 1}")),)
