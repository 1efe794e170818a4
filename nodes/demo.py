"""`python3 run.py demo`: one image-to-video from a still, in rehearsal unless --live is given."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from . import account, plain
from .errors import KlingError
from .generation import generate
from .kling import storyboard as boards
from .kling.request import build
from .media.types import Still
from .progress import sentence
from .settings import Settings

OUTPUT = Path(__file__).resolve().parent.parent / "output"
SCRIPT = """\
[3s] Wide shot: the valley lies still under the first light.
[4s] The camera drifts forward over the ridges as the mist lifts.
[3s] Close on a single bird crossing the sun.
"""


def main(argv: list[str]) -> int:
    """Prints the progress and ends with a line `video: <path>`."""
    options = _parser().parse_args(argv)
    try:
        picture = _still(options.image)
        script = SCRIPT if options.storyboard is None else options.storyboard.read_text(encoding="utf-8")
        shots = None if options.prompt and not options.storyboard else boards.parse(script)
        fields = {"prompt": options.prompt, "start_image_url": picture, "multi_prompt": shots}
        request = build("image-to-video", "standard", fields)
        settings = Settings.read(os.environ, account.read_token(plain.private_folder()))
        payer = account.live(settings, plain.private_folder()) if options.live else account.rehearsal(settings)
        workspace = plain.workspace(OUTPUT, show=_Lines().show)
        print("A paid generation on RunComfy." if options.live else "A rehearsal: free, on this machine alone.")
        delivery = asyncio.run(
            generate(request, variation=options.variation, prefix="kling", adopt="", account=payer, workspace=workspace)
        )
    except (KlingError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped. What RunComfy has accepted is taken up when you run this again.", file=sys.stderr)
        return 130
    cost = "" if delivery.cost_usd is None else f" · cost: {delivery.cost_usd:.2f} USD"
    print(f"request: {delivery.request_id}{cost}")
    print(f"video: {delivery.files[0].path}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="run.py demo", description="Makes one clip from a still.")
    parser.add_argument("--image", type=Path, metavar="FILE", help="the still; a painted valley by default")
    parser.add_argument("--prompt", metavar="TEXT", default="", help="what the video shows, instead of a storyboard")
    parser.add_argument("--storyboard", type=Path, metavar="FILE", help="a script: one shot a line, [5s] before each")
    parser.add_argument("--variation", type=int, default=0, metavar="N", help="another number is a new take")
    parser.add_argument("--live", action="store_true", help="a paid generation with RUNCOMFY_API_TOKEN")
    return parser


def _still(path: Path | None) -> Still:
    if path is None:
        from .rehearsal.scenery import scenery

        picture = scenery("a valley at first light", 0, (1280, 720))
    else:
        picture = ImageOps.exif_transpose(Image.open(path))
    return Still(np.ascontiguousarray(np.asarray(picture.convert("RGB"))), "image")


class _Lines:
    """Prints each state; on a terminal the seconds of a stage tick on in place."""

    def __init__(self) -> None:
        self._stage = ""

    def show(self, facts: dict[str, Any]) -> None:
        line = f"  {sentence(facts)}"
        if not sys.stdout.isatty():
            print(line, flush=True)
            return
        goes_on = facts["stage"] == self._stage
        print("\r\033[K" if goes_on else "\n" if self._stage else "", line, sep="", end="", flush=True)
        self._stage = facts["stage"]
        if self._stage in ("saved", "failed", "stopped"):
            print(flush=True)
