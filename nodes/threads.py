"""Blocking work off the event loop, in threads that hold nothing up.

asyncio's own executor is no use here: a loop waits for its threads when it
closes, and the interpreter joins them at exit, so one slow download would hold
ComfyUI's queue or its shutdown. These threads are daemons of their own.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


def start(work: Callable[..., T], *args: Any) -> Future[T]:
    """Run work(*args) in a daemon thread with the caller's context variables."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            future.set_result(context.run(work, *args))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True, name=f"runcomfy-kling {work.__name__}").start()
    return future


async def off_loop(work: Callable[..., T], *args: Any) -> T:
    """Await work(*args) done by a daemon thread. Cancelling abandons the thread, which runs on."""
    return await asyncio.wrap_future(start(work, *args))
