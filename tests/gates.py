"""A server and nodes that a test can wait for and hold, so that it never has to guess how long things take."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from corridor import plain_workspace
from faults import KINDS, Answer, FaultyServer
from runcomfy_kling.nodes.account import Account
from runcomfy_kling.nodes.corridor import Delivery
from runcomfy_kling.nodes.rehearsal.server import RehearsalServer
from runcomfy_kling.nodes.workspace import Stopped, Workspace

LONGEST_SECONDS = 60.0
# Shorter than the client's own patience: what waits for a kept answer is to see it given up here, not there.
KEPT_SECONDS = 20.0


class GatedServer(FaultyServer):
    """While answers of a kind of call are kept back, the server behind has taken the call all the same.

    let_through: the kinds of the calls that were forwarded and are kept back no more.
    """

    def __init__(self, behind: RehearsalServer) -> None:
        super().__init__(behind)
        self.let_through: list[str] = []
        self._kept_back: set[str] = set()

    @property
    def accepted(self) -> list[str]:
        """The ids of all submissions that were ever accepted."""
        return [job.request_id for job in self.behind.jobs]

    def keep_back(self, kind: str) -> None:
        with self._arrived:
            self._kept_back.add(kind)

    def let_go(self, kind: str) -> None:
        with self._arrived:
            self._kept_back.discard(kind)
            self._arrived.notify_all()

    def forget_faults(self) -> None:
        with self._arrived:
            self._faults.clear()

    def forward(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        answer = super().forward(method, path, headers, body)
        kind = next(kind for kind, its_method, pattern in KINDS if its_method == method and re.match(pattern, path))
        with self._arrived:
            opened = self._arrived.wait_for(lambda: kind not in self._kept_back, KEPT_SECONDS)
            self.let_through.append(kind)
        if not opened:
            raise TimeoutError(f"{kind} was kept back for more than {KEPT_SECONDS:g} s")
        return answer


class Node:
    """A node at work in a thread of its own, with its own Stop."""

    def __init__(self, ask: Callable[..., Delivery], account: Account, folder: Path, what: Any) -> None:
        self._stop = threading.Event()
        self._shown: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        workspace = plain_workspace(folder, self._show, self._stop.is_set)
        self._done: Future[Delivery] = Future()
        threading.Thread(target=self._run, args=(ask, account, workspace, what), daemon=True).start()

    def _run(self, ask: Callable[..., Delivery], account: Account, workspace: Workspace, what: Any) -> None:
        try:
            self._done.set_result(ask(what, account, workspace))
        except BaseException as error:
            self._done.set_exception(error)

    def _show(self, facts: dict[str, Any]) -> None:
        with self._changed:
            self._shown.append(facts)
            self._changed.notify_all()

    def wait_until_shown(self, *stages: str, saying: str = "") -> str:
        """The stage, once the node shows one of these with such words."""

        def there() -> str | None:
            found = (f["stage"] for f in self._shown if f["stage"] in stages and saying in (f["message"] or ""))
            return next(found, None)

        with self._changed:
            stage = self._changed.wait_for(there, LONGEST_SECONDS)
        assert stage, f"never showed {stages} {saying!r}, but {[f['stage'] for f in self._shown]}"
        return stage

    def stop(self) -> None:
        self._stop.set()
        with pytest.raises(Stopped):
            self.delivery()

    def delivery(self) -> Delivery:
        return self._done.result(LONGEST_SECONDS)
