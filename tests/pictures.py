"""Real photographs in the sizes that people generate from."""

from __future__ import annotations

import functools
import io

import numpy as np
import skimage.data
from PIL import Image

NAMES = ("astronaut", "chelsea", "coffee", "rocket")
SIZES = {"720p": (1280, 720), "1080p": (1920, 1080), "4K": (3840, 2160), "8K": (7680, 4320)}


@functools.lru_cache(maxsize=4)
def photograph(name: str, width: int, height: int, grain: float = 0) -> np.ndarray:
    """uint8 [height, width, 3]: scaled, with noise of that standard deviation as a sensor adds it."""
    picture = Image.fromarray(getattr(skimage.data, name)()).resize((width, height), Image.Resampling.LANCZOS)
    pixels = np.asarray(picture)
    if grain:
        tile = np.random.default_rng(1).normal(0, grain, (height // 4, width // 4, 3)).astype(np.float32)
        noise = np.tile(tile, (4, 4, 1))
        pixels = np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels)


def noise(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def psnr(pixels: np.ndarray, data: bytes) -> float:
    """Of an encoded picture against its pixels, in dB over all channels; infinite where they are equal."""
    error = np.square(decoded(data).astype(np.float32) - pixels).mean(dtype=np.float64)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))
