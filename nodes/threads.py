"""Blocking work off the event loop, in threads that hold nothing up.

asyncio's own executor is no use here: a loop waits for its threads when it
closes, and the interpreter joins them at exit, so one slow download would hold
ComfyUI's queue or its shutdown. These threads are daemons of their own.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")
Job = Callable[[], None]

# Starting a thread takes longer than a call of RunComfy's does.
IDLE_SECONDS = 10.0

# Work that keeps a core busy takes turns: more of it at once ends no sooner, and slows everything else down.
cores = threading.BoundedSemaphore(os.cpu_count() or 1)


def start(work: Callable[..., T], *args: Any) -> Future[T]:
    """Run work(*args) at once in a daemon thread with the caller's context variables."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()
    context = contextvars.copy_context()

    def job() -> None:
        try:
            future.set_result(context.run(work, *args))
        except BaseException as error:
            future.set_exception(error)

    _workers.do(job)
    return future


class _Workers:
    """As many threads as there is work at once. One that has ended its work waits a while for more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[queue.SimpleQueue[Job]] = []

    def do(self, job: Job) -> None:
        with self._lock:
            inbox = self._idle.pop() if self._idle else None
        if inbox:
            inbox.put(job)
        else:
            threading.Thread(target=self._work, args=(job,), daemon=True, name="runcomfy-kling").start()

    def _work(self, job: Job) -> None:
        inbox: queue.SimpleQueue[Job] = queue.SimpleQueue()
        while True:
            job()
            del job  # with all that its result holds
            with self._lock:
                self._idle.append(inbox)
            try:
                job = inbox.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if inbox in self._idle:
                        self._idle.remove(inbox)
                        return
                job = inbox.get()


_workers = _Workers()


async def off_loop(work: Callable[..., T], *args: Any) -> T:
    """Await work(*args) done by a daemon thread. Cancelling abandons the thread, which runs on."""
    return await asyncio.wrap_future(start(work, *args))
