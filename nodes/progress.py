"""The state of one generation as people see it, on the node and in a terminal.

Its stages: preparing, sharing (another node or process already works on this very generation), submitting, queued,
generating, downloading; in the end saved, stopped or failed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

FACTS: dict[str, Any] = {
    "stage": "preparing",
    "request_id": None,
    "queue_position": None,
    "expected": None,  # seconds such a clip usually takes
    "received": None,  # bytes
    "total": None,  # bytes
    "cost_usd": None,
    "rehearsal": False,
    "reused": False,  # already paid: nothing was submitted
    "message": None,
    "outcome": None,  # of a Stop that asked RunComfy to cancel: cancelled, runs_on or unconfirmed
    "clips": None,  # the saved clips, as the page addresses them
}

BLOCKS_SECONDS = 0.25


class Progress:
    """Collects facts and passes each change on, with the seconds since the submission as `elapsed`."""

    def __init__(self, show: Callable[[dict[str, Any]], None], **facts: Any) -> None:
        self._show = show
        self._facts = FACTS | facts
        self.since = time.time()
        self._blocks_shown = 0.0

    def update(self, **facts: Any) -> None:
        self._facts |= facts
        now = time.time()
        self._show(self._facts | {"elapsed": max(0.0, now - self.since), "time": now})

    def received(self, received: int, total: int | None) -> None:
        """A block has arrived. Shown a few times a second, however fast the line is."""
        now = time.monotonic()
        if received == total or now - self._blocks_shown >= BLOCKS_SECONDS:
            self._blocks_shown = now
            self.update(stage="downloading", received=received, total=total)

    def note(self, message: str) -> None:
        """Add a sentence to what the node says, once."""
        before = self._facts["message"] or ""
        if message not in before:
            self.update(message=f"{before} {message}".strip())


def fraction(facts: dict[str, Any]) -> float:
    """How far along a generation is, 0 to 1: by time while it waits, by bytes while it downloads."""
    stage = facts["stage"]
    if stage == "saved":
        return 1.0
    if stage == "downloading":
        return 0.9 + 0.1 * (facts["received"] or 0) / (facts["total"] or facts["received"] or 1)
    if stage not in ("queued", "generating"):
        return 0.0
    # Nears the end and never reaches it: what such a clip usually takes is no promise.
    waited = facts["elapsed"] / (facts["expected"] or 120.0)
    return 0.9 * min(waited, 0.9) if waited < 0.9 else 0.9 * (1 - 0.09 / waited)


def sentence(facts: dict[str, Any]) -> str:
    """The state in words, for terminals and logs."""
    stage, elapsed = facts["stage"], f"{facts['elapsed']:.0f} s"
    if stage == "queued" and facts["queue_position"] is not None:
        return f"queued, position {facts['queue_position']}, {elapsed}"
    if stage == "downloading" and facts["received"] is not None:
        total = f" of {facts['total'] / 1e6:.1f}" if facts["total"] else ""
        return f"downloading, {facts['received'] / 1e6:.1f}{total} MB"
    return f"{stage}, {elapsed}" if stage in ("queued", "generating") else str(stage)
