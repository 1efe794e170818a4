"""A file on its way to a place where RunComfy can read it, and what such a way is."""

from __future__ import annotations

import hashlib
import io
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

SUFFIXES = {"image/png": "png", "image/jpeg": "jpg", "video/mp4": "mp4"}


@dataclass(frozen=True)
class Payload:
    """data: the bytes, or the path of a file that holds them. content_type: one of SUFFIXES. name: for messages."""

    data: bytes | Path
    content_type: str
    name: str

    @property
    def size(self) -> int:
        return len(self.data) if isinstance(self.data, bytes) else self.data.stat().st_size

    @property
    def suffix(self) -> str:
        return SUFFIXES[self.content_type]

    def open(self) -> BinaryIO:
        return io.BytesIO(self.data) if isinstance(self.data, bytes) else self.data.open("rb")

    def digest(self) -> str:
        """SHA-256 in hex."""
        sha = hashlib.sha256()
        with self.open() as file:
            while block := file.read(1 << 20):
                sha.update(block)
        return sha.hexdigest()


class Way(ABC):
    """How one generation's media are hosted.

    still_bytes: the most a still may have. total_bytes: the most all media together may have, or None.
    note: what the user should know about the choice, or "".
    """

    # What RunComfy recommends for a file behind a URL.
    still_bytes = 50_000_000
    total_bytes: int | None = None
    note = ""

    @abstractmethod
    def put(self, payload: Payload) -> str | bytes:
        """The URL under which RunComfy can read it from now on; as bytes where JSON has nothing to escape in it.

        Raises HostingError.
        """

    def withdraw(self) -> None:  # noqa: B027 - most ways leave nothing to withdraw
        """End what must not outlive the generation. Nothing can be put afterwards."""
