"""ComfyUI IMAGE -> Still: eight bits, three channels, one picture."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import InputError
from .types import Still

# Kling's own limits; RunComfy's schema does not carry them, so they only warn.
SHORTEST_SIDE = 300
LONGEST_RATIO = 2.5

# Rows are worked through in blocks that stay in the processor's cache.
BLOCK_VALUES = 1 << 17


def still(image: Any, name: str) -> Still:
    """The one picture in `image`.

    image: ComfyUI IMAGE, torch tensor or NumPy array, shape [1, H, W, C], RGB in [0, 1] as floats of any
    width (values outside are clamped) or uint8 in 0-255. C is 3, 1 (gray) or 4 (flattened over black).
    It is only read. name: the node input, for messages.

    Raises InputError for more than one picture, no pixels, NaN or infinity, and any other shape or type.
    """
    _check(image, name)
    count = image.shape[0]
    if count != 1:
        raise InputError(
            f"{name} takes one image but got a batch of {count}: "
            "use an 'ImageFromBatch' node to choose the one to send."
        )
    return _convert(image, 0, name)


def stills(batch: Any, name: str) -> list[Still]:
    """Every picture in `batch`, shape [B, H, W, C]; otherwise as `still`."""
    _check(batch, name)
    return [_convert(batch, index, name) for index in range(batch.shape[0])]


def warnings(still: Still) -> list[str]:
    """What Kling may not like about the still's size, one sentence each."""
    height, width = still.pixels.shape[:2]
    found = []
    if min(height, width) < SHORTEST_SIDE:
        found.append(
            f"{still.name} is {width}×{height}: Kling is known to want at least {SHORTEST_SIDE} pixels on each side."
        )
    if max(height, width) > LONGEST_RATIO * min(height, width):
        found.append(f"{still.name} is {width}×{height}: Kling is known to want shapes between 1:2.5 and 2.5:1.")
    return found


def _check(image: Any, name: str) -> None:
    shape = tuple(getattr(image, "shape", ()))
    if len(shape) != 4 or shape[3] not in (1, 3, 4):
        raise InputError(
            f"{name} must be an IMAGE of shape [batch, height, width, 1, 3 or 4 channels], "
            f"but got {f'shape {list(shape)}' if shape else type(image).__name__}: connect an IMAGE output."
        )
    if 0 in shape:
        raise InputError(f"{name} has no pixels (shape {list(shape)}): connect a node that makes a picture.")
    kind = str(image.dtype).removeprefix("torch.")
    if kind != "uint8" and not kind.startswith(("float", "bfloat")):
        raise InputError(
            f"{name} holds values of type {kind}: "
            "an IMAGE holds floating-point numbers from 0 to 1, or uint8 from 0 to 255."
        )
    if getattr(image, "is_meta", False):
        raise InputError(f"{name} is a placeholder without data (device meta): connect a node that makes a picture.")


def _convert(image: Any, index: int, name: str) -> Still:
    _, height, width, channels = image.shape
    pixels = np.empty((height, width, 3), np.uint8)
    step = max(1, BLOCK_VALUES // (width * channels))
    bad = 0
    for top in range(0, height, step):
        rows = _rows(image[index, top : top + step])
        bad += _count_bad(rows)
        if not bad:
            pixels[top : top + step] = _rgb(rows)
    if bad:
        raise InputError(
            f"{name} has {bad} of {height * width} pixels that are not numbers (NaN or infinity): "
            "repair the node before it (an fp16 VAE is the usual cause: start ComfyUI with --fp32-vae)."
        )
    return Still(pixels, name)


def _rows(block: Any) -> np.ndarray:
    if hasattr(block, "detach"):
        block = block.detach().cpu()
        if block.is_floating_point() and block.element_size() < 4:
            block = block.float()  # NumPy has no bfloat16
        return block.numpy()
    return np.asarray(block)


def _count_bad(rows: np.ndarray) -> int:
    finite = np.isfinite(rows)
    return 0 if finite.all() else int((~finite.all(axis=-1)).sum())


def _rgb(rows: np.ndarray) -> np.ndarray:
    if rows.dtype == np.uint8:
        if rows.shape[-1] < 4:
            return rows
        rows = rows / 255.0
    # Only in double precision is the product exact, so that each value rounds to its nearest neighbour.
    levels = np.clip(rows, 0, 1).astype(np.float64)
    if rows.shape[-1] == 4:
        levels = levels[..., :3] * levels[..., 3:]
    levels *= 255
    levels += 0.5
    return levels.astype(np.uint8)
