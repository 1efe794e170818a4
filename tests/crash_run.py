"""A generation that dies at a place of the pack's own code: the program that test_crash.py kills.

    crash_run.py URL FOLDER           runs to its end and prints each place it passes
    crash_run.py URL FOLDER PLACE     dies when it gets to a place that begins so

A place is `file:function:line`, the line as its text: it is the next to run.
"""

from __future__ import annotations

import asyncio
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
                print(here, flush=True)
        return on_line

    threading.settrace(on_call)
    sys.settrace(on_call)


def main(url: str, folder: Path, place: str = "") -> None:
    runpy.run_path(str(ROOT / "run.py"))["load_pack"]()
    from runcomfy_kling.nodes import plain
    from runcomfy_kling.nodes.account import live
    from runcomfy_kling.nodes.generation import generate
    from runcomfy_kling.nodes.kling.request import build
    from runcomfy_kling.nodes.settings import Settings

    request = build("text-to-video", "pro", {"prompt": "A train crosses a viaduct.", "duration": 3})
    account = live(Settings(token="test-token-that-no-message-may-hold", base_url=url), folder / "private")
    workspace = plain.workspace(folder / "output", private=folder / "private")
    work = generate(request, variation=0, prefix="clip", adopt="", account=account, workspace=workspace)
    watch(ROOT / "nodes", place)
    asyncio.run(work)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
