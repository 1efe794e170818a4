"""Whose money a generation spends: a live account, or nobody's in a rehearsal. Both walk the same corridor."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .ledger import Ledger
from .runcomfy.client import Client
from .settings import Settings

TOKEN_FILE = "token"


@dataclass(frozen=True)
class Account:
    """free: a rehearsal; nothing leaves the machine and nothing is paid.

    usual: seconds such a clip is thought to take as long as the ledger knows none.
    """

    client: Client
    ledger: Ledger
    settings: Settings
    token: str = field(repr=False)
    free: bool = False
    usual: tuple[float, ...] = ()


def live(settings: Settings, private: Path) -> Account:
    """The user's account. Raises AccountError where no token is set."""
    token = settings.require_token()
    return Account(Client(settings.base_url, token), live_ledger(private), settings, token)


def live_ledger(private: Path) -> Ledger:
    return Ledger(private / "ledger")


class _Rehearsals:
    """The rehearsal server of this process, started when first asked for.

    Its ledger lies in a temporary folder: what a server in memory knew is gone with
    it, so an entry that outlived it could never be taken up.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._server: Any = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def account(self, settings: Settings) -> Account:
        with self._lock:
            if self._server is None:
                from .rehearsal.server import RehearsalServer

                self._folder = tempfile.TemporaryDirectory(prefix="runcomfy-kling-rehearsal-")
                # Long enough in the queue to be seen there.
                self._server = RehearsalServer(queue_seconds=1.5, keep_bodies=False).start()
        assert self._folder is not None
        token = "rehearsal"
        ledger = Ledger(Path(self._folder.name))
        return Account(Client(self._server.base_url, token), ledger, settings, token, free=True, usual=(4.0,))


_rehearsals = _Rehearsals()


def rehearsal(settings: Settings) -> Account:
    """A free stand-in for the account: a server on loopback that renders animatics."""
    return _rehearsals.account(settings)


def read_token(private: Path) -> str:
    """The token saved in ComfyUI's settings page, or "" where there is none."""
    try:
        return (private / TOKEN_FILE).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def save_token(private: Path, token: str) -> None:
    """Keep a token in a file that its owner alone can read. An empty token clears it."""
    path = private / TOKEN_FILE
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    if token:
        private.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(token)
