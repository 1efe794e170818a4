"""What a request can point at. A request holds these where RunComfy wants a URL."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True, eq=False)
class Still:
    """One picture.

    pixels: uint8, shape [H, W, 3], RGB, C-contiguous, never written to.
    name: the node input it came from, for messages.
    """

    pixels: np.ndarray
    name: str


@dataclass(frozen=True, eq=False)
class Clip:
    """One video as its source: the path of a file, or the bytes of one."""

    source: Path | bytes
    name: str


@dataclass(frozen=True)
class Link:
    """A public https URL, passed on untouched."""

    url: str
    name: str


Media = Still | Clip | Link
