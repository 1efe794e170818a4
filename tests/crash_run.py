"""A generation that dies at a place of the pack's own code: the program that test_crash.py kills.

    crash_run.py URL FOLDER           runs to its end and prints each place it passes
    crash_run.py URL FOLDER PLACE     dies when it gets to a place that begins so
    crash_run.py                      reads one JSON object a line, the arguments of `generation` below (POSIX only)

A place is `file:function:line`, the line as its text: it is the next to run.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import linecache
import os
import runpy
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PROMPT = "A train crosses a viaduct."
TOKEN = "test-token-that-no-message-may-hold"
# The rooms that a paid second passes through.
WATCHED = ("generation.py", "corridor.py", "ledger.py", "lease.py", "save.py", "client.py", "download.py", "wait.py")


def watch(folder: Path, place: str) -> None:
    """Look at each line that is about to run, in every thread."""
    files = {str(path): path.name for path in folder.rglob("*.py") if path.name in WATCHED}
    passed: set[str] = set()

    def on_call(frame: FrameType, event: str, argument: Any) -> Any:
        return on_line if frame.f_code.co_filename in files else None

    def on_line(frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            code = frame.f_code
            text = linecache.getline(code.co_filename, frame.f_lineno).strip()
            here = f"{files[code.co_filename]}:{code.co_name}:{text}"
            if place and here.startswith(place):
                # What no program can catch; Windows calls it by another name.
                os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
            if not place and here not in passed:
                passed.add(here)
                print(here + "\n", end="", flush=True)  # one piece: other threads print too
        return on_line

    threading.settrace(on_call)
    sys.settrace(on_call)


def generation(url: str, folder: Path, place: str = "", prompt: str = PROMPT, token: str = TOKEN) -> None:
    from runcomfy_kling.nodes import plain
    from runcomfy_kling.nodes.account import live
    from runcomfy_kling.nodes.generation import generate
    from runcomfy_kling.nodes.kling.request import build
    from runcomfy_kling.nodes.settings import Settings

    request = build("text-to-video", "pro", {"prompt": prompt, "duration": 3})
    account = live(Settings(token=token, base_url=url), folder / "private")
    workspace = plain.workspace(folder / "output", private=folder / "private")
    work = generate(request, variation=0, prefix="clip", adopt="", account=account, workspace=workspace)
    watch(ROOT / "nodes", place)
    asyncio.run(work)


def serve() -> None:
    """A process for each line, quick because all is imported already; prints how it ended, 0 for a clip."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            # The lines belong to the parent, and so does what it prints.
            os.dup2(os.open(os.devnull, os.O_RDWR), 1)
            try:
                generation(**json.loads(line, object_hook=lambda job: job | {"folder": Path(job["folder"])}))
            except BaseException:
                os._exit(1)
            os._exit(0)
        print(os.waitpid(child, 0)[1], flush=True)


if __name__ == "__main__":
    runpy.run_path(str(ROOT / "run.py"))["load_pack"]()
    if len(sys.argv) > 1:
        generation(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
    else:
        for name in ("generation", "media.video", "rehearsal.server"):
            importlib.import_module(f"runcomfy_kling.nodes.{name}")
        serve()
