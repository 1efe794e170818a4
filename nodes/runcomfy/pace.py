"""When to ask next. Time is passed in: nothing here reads a clock or sleeps.

Polling in proportion to the square root of the hazard (the chance that a clip which still
runs ends within the next second) notices ends soonest for a given number of calls. So the
durations of earlier clips are fitted with a log-logistic law, whose hazard has a closed form,
and the rate is scaled until the calls expected are those of a fixed-interval poller.
"""

from __future__ import annotations

import functools
import math
import threading
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

MIN_INTERVAL = 1.0
MAX_INTERVAL = 30.0
# Spend as many calls as a poller of this interval (seconds): a tenth short of the usual 3 s,
# because the call that finds the clip ended comes on top.
PAR_INTERVAL = 3.3

RECENT = 40
HALF_LIFE = 10.0  # clips; how long a typical duration keeps depends on the load at Kling
PLAUSIBLE = (1.0, 4 * 3600.0)  # seconds; anything else comes from a clock that jumped

# What is believed before the first clip: 130 s, two in three between 70 s and 240 s.
# The weights are in clips: the centre gives way at once, the spread after a few.
PRIOR_CENTRE, PRIOR_CENTRE_WEIGHT = math.log(130.0), 0.3
PRIOR_SPREAD, PRIOR_SPREAD_WEIGHT = 0.3, 3.0
# A refusal comes early, a stuck job late: a little hazard at every age, equal in every doubling of it.
SURPRISE = 0.01

QUEUE_STEP = 3.0
# A hundred clips in their last seconds are then each asked once a second, as a single one is.
CALLS_PER_SECOND = 100.0

_AGES = [0.25 * 1.07**i for i in range(162)]  # seconds, up to PLAUSIBLE's end
_STEPS = [late - early for early, late in zip([0.0, *_AGES], _AGES, strict=False)]


class Pace:
    """The pace of one waiting generation.

    durations: seconds that clips like this one took before, newest first; may be empty.
    """

    def __init__(self, durations: Sequence[float]) -> None:
        #: Typical duration in seconds; None when nothing is known yet.
        self.expected: float | None
        self.expected, centre, spread = _fit(durations)
        self._polls = _schedule(centre, spread)

    def delay(
        self,
        waited: float,
        *,
        queue_position: int | None = None,
        retry_after: float | None = None,
        failures: int = 0,
    ) -> float:
        """Seconds until the next poll, at least 1.

        waited: seconds so far, measured like the durations.
        queue_position: as RunComfy reports it while the request is queued, else None.
        retry_after: seconds the server asked for; failures: polls in a row without an answer.
        """
        if queue_position is None:
            delay = self._until_next(max(waited, 0.0))
        else:
            delay = QUEUE_STEP * max(queue_position, 1)
        delay = max(delay, 2.0 ** min(failures, 8) - 1)
        return max(MIN_INTERVAL, min(delay, MAX_INTERVAL), retry_after or 0.0)

    def _until_next(self, waited: float) -> float:
        due = _interpolate(waited, _AGES, self._polls) + 1
        return _interpolate(due, self._polls, _AGES) - waited


class PollBudget:
    """Spreads the calls of all waiting generations of a process: first come, first served."""

    def __init__(self, calls_per_second: float = CALLS_PER_SECOND) -> None:
        self._gap = 1 / calls_per_second
        self._next = -math.inf
        self._lock = threading.Lock()

    def reserve(self, now: float) -> float:
        """Take the next free slot; seconds to wait for it."""
        with self._lock:
            slot = max(now, self._next)
            self._next = slot + self._gap
            return slot - now

    def pause(self, now: float, seconds: float) -> None:
        """Give out no slot for so many seconds: the rate limit is the account's, not one request's."""
        with self._lock:
            self._next = max(self._next, now + seconds)


def _fit(durations: Sequence[float]) -> tuple[float | None, float, float]:
    """Typical seconds (None if unknown), and centre and spread of the logarithm of the next duration."""
    logs = [math.log(d) for d in durations if PLAUSIBLE[0] <= d <= PLAUSIBLE[1]][:RECENT]
    weights = [0.5 ** (age / HALF_LIFE) for age in range(len(logs))]
    total = sum(weights)
    expected = None
    mean = PRIOR_CENTRE
    if logs:
        ordered, tenth = sorted(logs), len(logs) // 10
        # The outer tenths count as their neighbours: one night asleep must not blur a hundred clips.
        logs = [min(max(x, ordered[tenth]), ordered[-1 - tenth]) for x in logs]
        mean = sum(w * x for w, x in zip(weights, logs, strict=True)) / total
        expected = math.exp(mean)
    # The posterior of a normal law with unknown mean and variance, and its predictive spread.
    known = total + PRIOR_CENTRE_WEIGHT
    centre = (total * mean + PRIOR_CENTRE_WEIGHT * PRIOR_CENTRE) / known
    squares = sum(w * (x - mean) ** 2 for w, x in zip(weights, logs, strict=True))
    squares += PRIOR_SPREAD_WEIGHT * PRIOR_SPREAD**2
    squares += total * PRIOR_CENTRE_WEIGHT / known * (mean - PRIOR_CENTRE) ** 2
    variance = squares / (total + PRIOR_SPREAD_WEIGHT)
    return expected, centre, math.sqrt(variance * (1 + 1 / known))


@functools.lru_cache(maxsize=64)
def _schedule(centre: float, spread: float) -> list[float]:
    """Polls due by each of _AGES."""
    shape = math.pi / (math.sqrt(3) * spread)
    surviving = [1 / (1 + math.exp(min(shape * (math.log(age) - centre), 700))) for age in _AGES]
    urgency = [math.sqrt((shape * (1 - s) + SURPRISE) / age) for s, age in zip(surviving, _AGES, strict=True)]
    at_stake = [s * step for s, step in zip(surviving, _STEPS, strict=True)]
    par = sum(at_stake) / PAR_INTERVAL

    low, high = 0.0, 1000.0
    for _ in range(25):
        scale = (low + high) / 2
        calls = sum(_rate(scale * u) * a for u, a in zip(urgency, at_stake, strict=True))
        low, high = (scale, high) if calls < par else (low, scale)
    return list(accumulate(_rate(scale * u) * step for u, step in zip(urgency, _STEPS, strict=True)))


def _rate(wanted: float) -> float:
    return min(max(wanted, 1 / MAX_INTERVAL), 1 / MIN_INTERVAL)


def _interpolate(x: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    """The line through (0, 0) and the points (xs, ys), going on as it ends."""
    i = min(bisect_right(xs, x), len(xs) - 1)
    x0, y0 = (xs[i - 1], ys[i - 1]) if i else (0.0, 0.0)
    return y0 + (x - x0) * (ys[i] - y0) / (xs[i] - x0)
