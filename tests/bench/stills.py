"""A 4K photograph from tensor to the bytes that are sent."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from figure import MIB, Figure, load_pack, median_seconds, watched
from photographs import photograph

SIZE = (3840, 2160)
INLINE_LIMIT = 6 * MIB


def measure() -> list[Figure]:
    from PIL import Image

    load_pack()
    from runcomfy_kling.nodes.media.encode import encode
    from runcomfy_kling.nodes.media.still import still

    image = _tensor(photograph(*SIZE))

    def plain() -> bytes:
        pixels = np.asarray(image[0])
        file = io.BytesIO()
        Image.fromarray((pixels * 255).round().astype(np.uint8)).save(file, "PNG")
        return file.getvalue()

    def ours(limit: int | None) -> Any:
        return encode(still(image, "start_image"), limit)

    # First, while the process holds no memory that an earlier round left behind.
    with watched() as watch:
        encoded = ours(None)
    hosted = median_seconds(lambda: ours(None))
    inline = median_seconds(lambda: ours(INLINE_LIMIT), rounds=3)
    png = median_seconds(plain, rounds=3)
    noise = _psnr(encoded.data, still(image, "start_image").pixels)
    size = image.nbytes
    memory = (size + watch.bytes) / size
    pictures = f"4K still, {len(encoded.data) / MIB:.1f} MiB {encoded.content_type.removeprefix('image/')}"
    baseline = f"{png:.2f} s Pillow's default PNG"
    return [
        Figure(pictures, f"{hosted * 1000:.0f} ms", "≥ 15 times", png / hosted >= 15, baseline, f"{png / hosted:.1f}"),
        Figure("  its PSNR", f"{noise:.1f} dB", "≥ 42 dB", noise >= 42),
        Figure("  its peak memory", f"{memory:.2f} tensors", "< 3 tensors", memory < 3),
        Figure("4K still inline, under 6 MiB", f"{inline * 1000:.0f} ms", "", None, baseline, f"{png / inline:.1f}"),
    ]


def _tensor(pixels: np.ndarray) -> Any:
    """As ComfyUI hands it over, where there is a torch."""
    try:
        import torch
    except ImportError:
        return pixels
    return torch.from_numpy(pixels)


def _psnr(data: bytes, pixels: np.ndarray) -> float:
    from PIL import Image

    decoded = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float32)
    return 10 * math.log10(255**2 / float(np.mean((decoded - pixels) ** 2)))
