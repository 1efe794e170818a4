"""A workspace without ComfyUI: for the demo, for scripts, and for nodes called from plain Python."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import InputError
from .workspace import Names, Workspace


def private_folder() -> Path:
    return Path.home() / ".runcomfy-kling"


def workspace(
    output: Path,
    *,
    private: Path | None = None,
    show: Callable[[dict[str, Any]], None] = lambda facts: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Workspace:
    """Clips are saved below `output`, under the names that ComfyUI would give them."""

    def names(prefix: str, width: int, height: int) -> Names:
        place = (output / prefix).resolve()
        if output.resolve() not in place.parents:
            raise InputError(f"filename_prefix {prefix!r} cannot be used: it must name a place inside {output}.")
        numbered = re.compile(re.escape(place.name) + r"_(\d+)_")
        found = map(numbered.match, os.listdir(place.parent)) if place.parent.is_dir() else ()
        return Names(place.parent, place.name, 1 + max((int(match[1]) for match in found if match), default=0))

    return Workspace(private=private or private_folder(), names=names, show=show, stopped=stopped, metadata={})
