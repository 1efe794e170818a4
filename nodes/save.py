"""Putting a finished file in its place: under the next free name, at once and whole, over nothing."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path

from .errors import SaveError
from .workspace import Names

PART = ".runcomfy-kling-"
ABANDONED_SECONDS = 24 * 3600


def part(folder: Path) -> Path:
    """A new name for a file on its way, hidden, in the folder where it will lie: a rename must not cross disks.

    Raises SaveError where the folder cannot be written. Sweeps what killed processes left behind.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        path = folder / f"{PART}{secrets.token_hex(8)}.mp4"
        path.touch(exist_ok=False)
    except OSError as error:
        raise SaveError(
            f"Clips cannot be saved in {folder} ({error.strerror or error}). Make the folder writable, then run again."
        ) from None
    return path


def publish(part: Path, names: Names) -> Path:
    """Give a finished file the next free name of a prefix. Never overwrites, never shows half a file."""
    counter = names.counter
    while True:
        # The underscore before the ending is how ComfyUI finds the counter.
        path = names.folder / f"{names.stem}_{counter:05}_.mp4"
        try:
            _move(part, path)
        except FileExistsError:
            counter += 1
        else:
            return path


def _sweep(folder: Path) -> None:
    for left in folder.glob(f"{PART}*"):
        with contextlib.suppress(FileNotFoundError):  # its own node was faster
            if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                left.unlink()


def _move(part: Path, path: Path) -> None:
    """Rename without replacing. Raises FileExistsError."""
    if os.name == "nt":
        part.rename(path)
        return
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:
        # No hard links here (exFAT, some shares): hold the name with an empty file, then replace that.
        path.touch(exist_ok=False)
        part.replace(path)
    else:
        part.unlink()
