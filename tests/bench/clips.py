"""MP4 files for the measurements."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from photographs import photograph

FPS = 24


def make_clip(path: Path, width: int, height: int, seconds: int, megabytes: float, key_every: int = 250) -> Path:
    """A slow pan over photographs, as H.264 with a key frame at least every so many frames. Returns its path."""
    import av

    wide = (photograph(width * 5 // 4 // 2 * 2, height)[0] * 255).astype(np.int16)
    # Grain that changes with every frame, or there would be nothing to spend the bytes on.
    rng = np.random.default_rng(1)
    grained = [np.clip(wide + rng.normal(0, 3, wide.shape), 0, 255).astype(np.uint8) for _ in range(8)]
    count = seconds * FPS
    options = {"preset": "superfast", "g": str(key_every)}
    with av.open(str(path), "w", options={"movflags": "faststart"}) as output:
        stream = output.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.bit_rate = round(megabytes * 8e6 / seconds)
        for number in range(count):
            left = number * (wide.shape[1] - width) // count
            pixels = np.ascontiguousarray(grained[number % len(grained)][:, left : left + width])
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode(None))
    return path
