"""This ComfyUI's own public address: a private folder of stills, and the route that answers for exactly those."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import requests

from ..errors import HostingError
from .way import SUFFIXES, Payload, Way

if TYPE_CHECKING:
    from aiohttp import web

ROUTE = "/runcomfy_kling/media"
NAME = re.compile(rf"[0-9a-f]{{16}}-[0-9a-f]{{48}}\.({'|'.join(SUFFIXES.values())})", re.ASCII)
CONTENT_TYPES = {suffix: content_type for content_type, suffix in SUFFIXES.items()}
# Longer than any job stays queued.
STALE_SECONDS = 8 * 24 * 3600
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class Store:
    """The files of running generations in one folder, shared by every ComfyUI process that uses it.

    A file's name says all there is to know: whose it is, a secret that cannot be guessed, and its type.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def publish(self, payload: Payload, owner: str) -> str:
        """Keep a copy until `owner` withdraws; returns its name. Raises HostingError if it cannot be written."""
        name = f"{_tag(owner)}-{secrets.token_hex(24)}.{payload.suffix}"
        part = self._folder / f"{name}.part"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with payload.open() as source, part.open("xb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
            os.replace(part, self._folder / name)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink()
            raise HostingError(
                f"{payload.name} could not be written to {self._folder} ({error.strerror}). Nothing was submitted."
            ) from None
        return name

    def find(self, name: str) -> tuple[Path, str] | None:
        """The file of that name and its content type, or None for any other text."""
        known = NAME.fullmatch(name)
        path = self._folder / name
        return (path, CONTENT_TYPES[known[1]]) if known and path.is_file() else None

    def withdraw(self, owner: str) -> None:
        """Delete what `owner` published, whichever process did."""
        for path in self._folder.glob(f"{_tag(owner)}-*"):
            _delete(path)

    def sweep(self) -> None:
        """Delete what was never withdrawn, after eight days."""
        oldest = time.time() - STALE_SECONDS
        for path in self._folder.glob("*"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < oldest:
                    _delete(path)


def _tag(owner: str) -> str:
    return hashlib.sha256(owner.encode()).hexdigest()[:16]


def _delete(path: Path) -> None:
    # Windows keeps a file that is just being read; the sweep takes it later.
    with contextlib.suppress(FileNotFoundError, PermissionError):
        path.unlink()


class OwnAddress(Way):
    """The way of one generation through this ComfyUI's public address.

    origin: where ComfyUI answers the internet, without a trailing slash.
    """

    def __init__(self, origin: str, store: Store, owner: str) -> None:
        self._base = f"{origin}{ROUTE}"
        self._store = store
        self._owner = owner
        self._open = True
        self._lock = threading.Lock()

    def why_not(self) -> str:
        """Why files published here cannot be read from outside, or "": asked with a probe, as a stranger would."""
        probe = Payload(secrets.token_bytes(64), "image/png", "the probe")
        owner = secrets.token_hex(16)
        try:
            url = f"{self._base}/{self._store.publish(probe, owner)}"
            # No redirects: they lead to logins. No .netrc either.
            with requests.get(
                url, auth=lambda request: request, allow_redirects=False, stream=True, timeout=(5, 10)
            ) as answer:
                if answer.status_code != 200:
                    return f"a probe of ours came back as HTTP {answer.status_code}"
                if next(answer.iter_content(1024), b"") != probe.data:
                    return "something else answered a probe of ours"
                return ""
        except requests.RequestException as error:
            return f"a probe of ours did not come back ({type(error).__name__})"
        finally:
            self._store.withdraw(owner)

    def put(self, payload: Payload) -> str:
        with self._lock:
            if not self._open:
                raise HostingError("The generation was stopped. Nothing was submitted.")
            return f"{self._base}/{self._store.publish(payload, self._owner)}"

    def withdraw(self) -> None:
        with self._lock:
            self._open = False
            self._store.withdraw(self._owner)


class RateLimit:
    """A token bucket: `burst` at once, then `per_second`. clock: seconds, as time.monotonic."""

    def __init__(self, per_second: float = 20, burst: float = 60, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._tokens = burst
        self._since = clock()

    def take(self) -> bool:
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._since) * self._per_second)
        self._since = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def route_handler(
    store: Store, limit: RateLimit, *, pause: float = 1.0, most_paused: int = 100
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """The handler of GET and HEAD {ROUTE}/{name}.

    Whoever knows a name is answered without limit, as RunComfy asks. Guesses get 404; beyond the limit they
    wait for `pause` seconds, at most `most_paused` at a time, and get 429: so a flood slows itself down.
    """
    from aiohttp import web

    paused = 0

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal paused
        found = store.find(request.match_info["name"])
        if found:
            path, content_type = found
            return web.FileResponse(path, headers={**HEADERS, "Content-Type": content_type})
        if limit.take():
            return web.Response(status=404, headers=HEADERS)
        if paused < most_paused:
            paused += 1
            try:
                await asyncio.sleep(pause)
            finally:
                paused -= 1
        return web.Response(status=429, headers={**HEADERS, "Retry-After": "60"})

    return handle
