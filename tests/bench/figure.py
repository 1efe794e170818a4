"""One line of the table, and what the measurements share."""

from __future__ import annotations

import runpy
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20


@dataclass(frozen=True)
class Figure:
    """measured, baseline: as shown, with unit. ratio: how many times better than the baseline, or "".

    ok: whether the target is met; None where there is none to meet.
    """

    name: str
    measured: str
    target: str
    ok: bool | None
    baseline: str = ""
    ratio: str = ""


def load_pack() -> Any:
    return runpy.run_path(str(ROOT / "run.py"))["load_pack"]()


def median_seconds(work: Callable[[], object], rounds: int = 5) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


class Peak:
    """bytes: the most that this process grew while it was watched."""

    def __init__(self) -> None:
        self.bytes = 0


@contextmanager
def watched_memory() -> Any:
    """Yields a Peak. Sampled: what comes and goes within 2 ms may be missed."""
    import psutil

    process = psutil.Process()
    idle = process.memory_info().rss
    peak = Peak()
    over = threading.Event()

    def sample() -> None:
        while not over.wait(0.002):
            peak.bytes = max(peak.bytes, process.memory_info().rss - idle)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()
