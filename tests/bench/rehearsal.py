"""The free stand-in: a ten-second 720p animatic."""

from __future__ import annotations

import base64
import io
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from figure import Figure, load_pack, median_seconds
from photographs import photograph

SECONDS = 10


def measure() -> list[Figure]:
    load_pack()
    from runcomfy_kling.nodes.rehearsal.animatic import render
    from runcomfy_kling.nodes.rehearsal.plan import plan

    text = {
        "prompt": "Dusk over terraced hills.",
        "duration": SECONDS,
        "multi_prompt": [
            {"prompt": "Wide shot of terraced hills at dusk.", "duration": 6},
            {"prompt": "Close on two glasses touching.", "duration": 4},
        ],
    }
    still = {"prompt": "Slow push in.", "duration": SECONDS, "start_image_url": _still()}
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        for name, model, body in (
            ("Rehearsal of 10 s, 720p", "pro/text-to-video", text),
            ("  from a 1080p still", "standard/image-to-video", still),
        ):
            film = plan(f"kling/kling-3.0/{model}", body)
            seconds = median_seconds(partial(render, film, Path(folder) / "film.mp4"), rounds=3)
            figures.append(
                Figure(
                    name,
                    f"{seconds:.1f} s",
                    "< 6 s",
                    seconds < 6,
                    f"{SECONDS} s playing it",
                    f"{SECONDS / seconds:.1f}",
                )
            )
    return figures


def _still() -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray((photograph(1920, 1080)[0] * 255).astype(np.uint8)).save(file, "JPEG", quality=95)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
