"""Where a generation happens: ComfyUI, or a plain Python program such as the demo and the tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

# Stop has to end every wait within a second.
STOP_CHECK_SECONDS = 0.25


class Stopped(Exception):
    """The user pressed Stop."""


@dataclass(frozen=True)
class Names:
    """Where clips of a prefix are saved: folder / f"{stem}_{counter:05}_.mp4", the counter being the next free one."""

    folder: Path
    stem: str
    counter: int


@dataclass(frozen=True)
class Workspace:
    """private: a folder no web server serves. metadata: what is embedded in a clip, by key.

    signature: of the graph that asks for the clip (see graph.py), or None. May take a while.
    clips: files as the page addresses them; those that it cannot show are left out.

    names: next names for a prefix, given the width and height in pixels (0 where not yet known).
    show: called with the state that the node shows (see progress.py).
    """

    private: Path
    names: Callable[[str, int, int], Names]
    show: Callable[[dict[str, Any]], None]
    stopped: Callable[[], bool]
    metadata: Mapping[str, Any]
    signature: Callable[[], str | None] = lambda: None
    clips: Callable[[Sequence[Path]], list[dict[str, str]]] = lambda paths: []


async def until_stopped(work: Coroutine[Any, Any, T], stopped: Callable[[], bool]) -> T:
    """Await work, cancelling it as soon as the user stops. Raises Stopped, and no CancelledError of its own."""
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    timer: asyncio.TimerHandle | None = None

    def look() -> None:
        # By a timer and not a wait with a time limit: a hundred of those cost a share of a core.
        nonlocal timer
        if stopped():
            task.cancel()
        else:
            timer = loop.call_later(STOP_CHECK_SECONDS, look)

    look()
    try:
        await asyncio.wait({task})
    finally:
        if timer:
            timer.cancel()
        task.cancel()
    if task.cancelled():
        raise Stopped
    return task.result()
