"""One line of the table, and what the measurements share."""

from __future__ import annotations

import math
import runpy
import statistics
import threading
import time
from collections.abc import Callable, Iterator
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


class Watch:
    """What this process used since it was first looked at. bytes: the most that it grew."""

    def __init__(self) -> None:
        import psutil

        self._process = psutil.Process()
        self._idle = self._process.memory_info().rss
        self._busy: list[tuple[float, float]] = []
        self.bytes = 0
        self.look()

    def look(self) -> None:
        times = self._process.cpu_times()
        self._busy.append((time.time(), times.user + times.system))
        self.bytes = max(self.bytes, self._process.memory_info().rss - self._idle)

    def cpu_share(self, start: float = 0.0, end: float = math.inf) -> float:
        """Of one core, between two times in Unix seconds."""
        within = [sample for sample in self._busy if start <= sample[0] <= end]
        (first, before), (last, after) = within[0], within[-1]
        return (after - before) / (last - first)


@contextmanager
def watched(interval: float = 0.002) -> Iterator[Watch]:
    """Looks every so many seconds: what comes and goes in between is missed, and looking costs some CPU."""
    watch = Watch()
    over = threading.Event()

    def look() -> None:
        while not over.wait(interval):
            watch.look()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        over.set()
        thread.join()
        watch.look()
