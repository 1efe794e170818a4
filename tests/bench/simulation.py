"""Pollers against simulated clips: how late each notices the end, and with how many calls."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """delays: seconds from end to notice, one per clip; calls: polls per clip."""

    delays: list[float]
    calls: list[int]

    @property
    def mean_delay(self) -> float:
        return fmean(self.delays)

    @property
    def mean_calls(self) -> float:
        return fmean(self.calls)

    def part(self, start: int, stop: int) -> Outcome:
        return Outcome(self.delays[start:stop], self.calls[start:stop])


def clips(count: int, median: float, last_median: float, sigma: float, seed: int) -> list[float]:
    """Durations in seconds: log-normal, the median drifting geometrically from first to last."""
    rng = random.Random(seed)
    drift = last_median / median
    return [median * drift ** (i / count) * math.exp(rng.gauss(0, sigma)) for i in range(count)]


def fixed(interval: float, durations: Iterable[float]) -> Outcome:
    calls, delays = [], []
    for duration in durations:
        polls = math.ceil(duration / interval)
        calls.append(polls)
        delays.append(polls * interval - duration)
    return Outcome(delays, calls)


def learning(pace: Callable[[Sequence[float]], Any], durations: Iterable[float], memory: int = 50) -> Outcome:
    """One clip after another, each paced by those before it, as the ledger gives them."""
    before: list[float] = []
    calls, delays = [], []
    for duration in durations:
        delay, polls = watch(pace(before), duration)
        delays.append(delay)
        calls.append(polls)
        before = [duration, *before[: memory - 1]]
    return Outcome(delays, calls)


def unlearned(pace: Callable[[Sequence[float]], Any], durations: Iterable[float]) -> Outcome:
    """Each clip as the first one ever."""
    prior = pace([])
    watched = [watch(prior, duration) for duration in durations]
    return Outcome([delay for delay, _ in watched], [polls for _, polls in watched])


def watch(pace: Any, duration: float) -> tuple[float, int]:
    """Seconds from end to notice, and calls made."""
    now, polls = 0.0, 0
    while now < duration:
        now += pace.delay(now)
        polls += 1
    return now - duration, polls
