"""The sound of a rehearsal: a quiet bed, and a tick at each cut."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

RATE = 48000  # samples a second
BED = (110.0, 164.81, 220.0, 277.18)  # an open A chord, in hertz
TICK_SECONDS = 0.06


def soundtrack(seconds: int, cuts: Iterable[float]) -> np.ndarray:
    """float32 in [-1, 1], shape [seconds * RATE]; the cuts are in seconds."""
    t = np.arange(seconds * RATE, dtype=np.float32) / RATE
    bed = sum(np.sin(2 * np.pi * tone * t) * (1 + 0.5 * np.sin(t * (0.5 + 0.17 * i))) for i, tone in enumerate(BED))
    fade = np.minimum(1, np.minimum(t, seconds - t) / 0.4)
    sound = 0.012 * fade * bed
    ring = np.arange(int(TICK_SECONDS * RATE), dtype=np.float32) / RATE
    tick = 0.35 * np.sin(2 * np.pi * 1760 * ring) * np.exp(-ring * 90)
    for cut in cuts:
        start = int(cut * RATE)
        sound[start : start + len(tick)] += tick
    return sound.astype(np.float32)
