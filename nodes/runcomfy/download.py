"""Bringing a result file here: streamed, resumed where the server can, from public addresses only."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from ..errors import DownloadError
from .client import CONNECT_SECONDS, READ_SECONDS, USER_AGENT, NotNow, retry_after

# Large enough that Python's share of a fast line is small, small enough to stay flat in memory.
BLOCK = 1 << 20
MAX_BYTES = 4 << 30
MAX_REDIRECTS = 5
PAGES = ("text/", "application/json", "application/xml")


class Download:
    """One file on its way. fetch() may be called again: it goes on where it stopped."""

    def __init__(
        self,
        path: Path,
        *,
        allow_loopback: bool,
        show: Callable[[int, int | None], None],
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """show: called with the bytes received and, where known, the bytes in total."""
        self.path = path
        self.stop = threading.Event()
        self._allow_loopback = allow_loopback
        self._show = show
        self._max_bytes = max_bytes
        self._validator = ""
        self._session = requests.Session()
        self._session.auth = _no_auth
        self._session.trust_env = not allow_loopback  # a proxy's loopback is another machine's
        self._session.headers.update({"User-Agent": USER_AGENT, "Accept-Encoding": "identity"})
        adapter = _PublicAdapter(allow_loopback)
        self._session.mount("https://", adapter)
        self._session.mount("http://", adapter)

    def fetch(self, url: str) -> None:
        """Stream the file to `path`. The token is never sent.

        Raises NotNow when it may be tried again, DownloadError when it must not.
        """
        have = self.path.stat().st_size if self._validator and self.path.exists() else 0
        headers = {"Range": f"bytes={have}-", "If-Range": self._validator} if have else {}
        try:
            with self._open(url, headers) as answer:
                self._receive(answer, self._resumed_at(answer, have))
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise NotNow(f"The download broke off ({type(error).__name__}).") from None

    def start_over(self) -> None:
        """Forget what has arrived: it is not what it should be."""
        self._validator = ""

    def _open(self, url: str, headers: dict[str, str]) -> requests.Response:
        for _ in range(MAX_REDIRECTS + 1):
            try:
                self._check(url)
                answer = self._session.get(
                    url,
                    headers=headers,
                    stream=True,
                    allow_redirects=False,
                    timeout=(CONNECT_SECONDS, READ_SECONDS),
                )
            except ValueError:  # of this address, or of the one it redirects to
                raise DownloadError("The result file's address is malformed, so it was not fetched.") from None
            if not answer.is_redirect:
                return answer
            answer.close()
            url = urljoin(url, answer.headers["Location"])
        raise DownloadError(f"The result file redirects more than {MAX_REDIRECTS} times.")

    def _check(self, url: str) -> None:
        parts = urlsplit(url)
        try:
            literal: Any = ipaddress.ip_address(parts.hostname or "")
        except ValueError:
            literal = None
        local = parts.hostname == "localhost" or (literal is not None and literal.is_loopback)
        if parts.scheme != "https" and not (parts.scheme == "http" and local and self._allow_loopback):
            raise DownloadError("The result file does not lie on a public https address, so it was not fetched.")
        if literal is not None and not _allowed(literal, self._allow_loopback):
            raise DownloadError("The result file lies on a private address, so it was not fetched.")

    def _resumed_at(self, answer: requests.Response, have: int) -> int:
        """Where the answer's bytes belong in the file. Raises NotNow where it is not the file."""
        kind = answer.headers.get("Content-Type", "").lower()
        if answer.status_code not in (200, 206) or kind.startswith(PAGES):
            self._validator = ""
            raise NotNow(
                f"The result file answered HTTP {answer.status_code}"
                + (" with a page in its place." if answer.ok else "."),
                retry_after(answer),
            )
        self._validator = answer.headers.get("ETag", "")
        if self._validator.startswith("W/"):
            self._validator = ""
        if answer.status_code == 206:
            if answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                return have
            self._validator = ""
            raise NotNow("The result file answered with another part than was asked for.")
        return 0

    def _receive(self, answer: requests.Response, have: int) -> None:
        length = answer.headers.get("Content-Length", "")
        total = have + int(length) if length.isdigit() else None
        if (total or 0) > self._max_bytes:
            raise DownloadError(f"The result file has {total} bytes: more than {self._max_bytes} are not fetched.")
        with self.path.open("r+b" if have else "wb") as file:
            file.seek(have)
            for block in answer.iter_content(BLOCK):
                if self.stop.is_set():
                    return
                have += len(block)
                if have > self._max_bytes:
                    raise DownloadError(f"The result file is larger than {self._max_bytes} bytes.")
                file.write(block)
                self._show(have, total)
        if total is not None and have != total:
            raise NotNow(f"The download ended after {have} of {total} bytes.")


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keeps requests from adding a ~/.netrc entry to a call that must carry no credentials."""
    return request


def _allowed(address: ipaddress.IPv4Address | ipaddress.IPv6Address, allow_loopback: bool) -> bool:
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_global or (allow_loopback and address.is_loopback)


class _PublicAdapter(HTTPAdapter):
    """Looks at the address a connection really has: a name may resolve to anything, at any time."""

    def __init__(self, allow_loopback: bool) -> None:
        self._allow_loopback = allow_loopback
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {
            scheme: self._guarded(pool)
            for scheme, pool in (("http", urllib3.HTTPConnectionPool), ("https", urllib3.HTTPSConnectionPool))
        }

    def _guarded(self, pool: Any) -> Any:
        allow_loopback = self._allow_loopback

        class Connection(pool.ConnectionCls):  # type: ignore[misc]
            def _new_conn(self) -> Any:
                sock = super()._new_conn()
                peer = ipaddress.ip_address(sock.getpeername()[0].partition("%")[0])
                if not _allowed(peer, allow_loopback):
                    sock.close()
                    raise DownloadError("The result file lies on a private address, so it was not fetched.")
                return sock

        return type(f"Guarded{pool.__name__}", (pool,), {"ConnectionCls": Connection})
