"""Stills for the measurements, from real photographs."""

from __future__ import annotations

from typing import Any

import numpy as np


def photograph(width: int, height: int, seed: int = 1) -> np.ndarray:
    """float32 [1, H, W, 3] in [0, 1]: four photographs side by side, with a sensor's grain.

    Grain, because an enlarged picture without it is smoother than what a camera delivers.
    """
    from PIL import Image
    from skimage import data

    sheet = Image.new("RGB", (width, height))
    half = (width // 2, height // 2)
    for number, name in enumerate(("astronaut", "coffee", "chelsea", "rocket")):
        source: Any = Image.fromarray(getattr(data, name)())
        left, top = (number % 2) * half[0], (number // 2) * half[1]
        sheet.paste(source.resize(half, Image.Resampling.LANCZOS), (left, top))
    pixels = np.asarray(sheet, np.float32)
    pixels = pixels + np.random.default_rng(seed).normal(0, 1.5, pixels.shape).astype(np.float32)
    return np.clip(pixels / 255, 0, 1)[None]
