"""A faulty server that a test can wait for, and that keeps answers back until the test has done its part."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

from faults import KINDS, Answer, Call, Fault, FaultyServer
from runcomfy_kling.nodes.rehearsal.server import RehearsalServer

LONGEST_SECONDS = 60.0


class GatedServer(FaultyServer):
    """While answers of a kind of call are kept back, the server behind has taken the call all the same.

    let_through: the kinds of the calls that were forwarded and are kept back no more.
    """

    def __init__(self, behind: RehearsalServer) -> None:
        super().__init__(behind)
        self.let_through: list[str] = []
        self._kept_back: set[str] = set()
        self._changed = threading.Condition()

    @property
    def accepted(self) -> list[str]:
        """The ids of all submissions that were ever accepted."""
        return [job.request_id for job in self.behind.jobs]

    def keep_back(self, kind: str) -> None:
        with self._changed:
            self._kept_back.add(kind)

    def let_go(self, kind: str) -> None:
        with self._changed:
            self._kept_back.discard(kind)
            self._changed.notify_all()

    def wait_for_call(self, kind: str, count: int = 1) -> None:
        """Until so many calls of a kind have arrived."""
        self._wait(lambda: self.count(kind) >= count)

    def take(self, call: Call) -> Fault | None:
        fault = super().take(call)
        with self._changed:
            self._changed.notify_all()
        return fault

    def forward(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        answer = super().forward(method, path, headers, body)
        kind = next(kind for kind, its_method, pattern in KINDS if its_method == method and re.match(pattern, path))
        try:
            self._wait(lambda: kind not in self._kept_back)
        finally:
            self.let_through.append(kind)
        return answer

    def _wait(self, predicate: Callable[[], Any]) -> None:
        with self._changed:
            if not self._changed.wait_for(predicate, LONGEST_SECONDS):
                raise TimeoutError(f"the server did not get there within {LONGEST_SECONDS:g} s")
