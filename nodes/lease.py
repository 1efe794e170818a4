"""Who works on a generation, and who waits for it, over all threads and processes.

One holder leads: it submits, waits and saves. Others who ask for the same
generation follow, and take over where it stopped. Both are said by locked
files, because the operating system lets go of a lock when its process dies,
whatever killed it; a clock or a process id can be wrong.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import LedgerError

_turn = threading.Lock()


class Lease:
    """One waiter for one generation; at most one of them leads."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        """Join the waiters. Raises LedgerError where files cannot be locked."""
        self._folder = folder
        # Apart from the files of those who led, which stay: the fewer there are to look through, the better.
        self._waiters = folder / "waiting"
        self._name = fingerprint
        self._gave_up = False
        self._lead = _lock(folder / f"{fingerprint}.lead")
        try:
            self._waiters.mkdir(parents=True, exist_ok=True)
            with self._door():
                self._waiter = _lock(self._waiters / f"{fingerprint}.{secrets.token_hex(8)}")
                self._waiter.acquire(timeout=0)
        except (OSError, NotImplementedError, Timeout) as error:
            raise LedgerError(
                f"Files in {folder} cannot be locked ({error}). Nothing was submitted: without locks a clip could be "
                "paid twice. Make the folder writable, or move ComfyUI's user folder to a local disk."
            ) from None

    @property
    def leads(self) -> bool:
        return self._lead.is_locked

    def try_lead(self) -> bool:
        """Take the lead if nobody alive has it."""
        if self.leads:  # the lock counts how often it is taken
            return True
        try:
            self._lead.acquire(timeout=0)
        except Timeout:
            return False
        if self._gave_up:  # by another thread, while this one was asking
            self._lead.release()
        return self.leads

    def leave(self) -> bool:
        """Stop waiting. Returns whether nobody else waits; otherwise the lead is theirs. Blocks for an instant."""
        with self._door():
            self._waiter.release()
            Path(self._waiter.lock_file).unlink(missing_ok=True)
            others = any(self._is_alive(path) for path in self._waiters.glob(f"{self._name}.*"))
            if others:
                # Behind the door, or the next to leave would find it taken and neither would be the last.
                self._lead.release()
            return not others

    def give_up_lead(self) -> None:
        self._gave_up = True
        self._lead.release()

    @contextlib.contextmanager
    def _door(self) -> Iterator[None]:
        """One waiter at a time, over all threads and processes, joins or leaves."""
        # The threads of one process take turns here: at the file they would sleep and try again.
        with _turn, _lock(self._folder / "door"):
            yield

    def _is_alive(self, waiter: Path) -> bool:
        """Whether a waiter's process still holds it. One left by a dead process is removed."""
        lock = _lock(waiter)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        waiter.unlink(missing_ok=True)
        return False


def _lock(path: Path) -> FileLock:
    # Taken in one thread and released in another: the default keeps its state thread by thread.
    return FileLock(path, thread_local=False)
