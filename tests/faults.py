"""A proxy in front of the rehearsal server that spoils calls: each fault as data, each call on record."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import socketserver
import struct
import sys
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from http.client import responses
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests
from runcomfy_kling.nodes.rehearsal.server import RehearsalServer

KINDS = (
    ("submit", "POST", r"/v1/models/.+"),
    ("catalogue", "GET", r"/v1/models/.+"),
    ("status", "GET", r"/v1/requests/[^/]+/status"),
    ("result", "GET", r"/v1/requests/[^/]+/result"),
    ("cancel", "POST", r"/v1/requests/[^/]+/cancel"),
    ("download", "GET", r"/files/.+"),
)
# Where a redirect points: the same server, to which a client that follows would bring the token along.
ELSEWHERE = "/elsewhere"
# Far from the clock of this machine, as a server's may be.
SERVER_CLOCK = 4_000_000_000.0
TRICKLE_SECONDS, TRICKLE_PIECES = 0.04, 12
# What the client's end of a connection may do at any time.
HUNG_UP = (BrokenPipeError, ConnectionResetError, ConnectionAbortedError)
PAGE = b"<!doctype html><html><head><title>Gateway</title></head><body><h1>Hello</h1></body></html>"


@dataclass(frozen=True)
class Answer:
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Fault:
    """What becomes of one call.

    forwarded: the server behind has taken the call, so a submission was accepted.
    spoil: makes what is sent of the true answer (an empty one where nothing was forwarded) and the call's path.
    sent: the share of the body that leaves before the connection is cut; None: not even a status line.
    trickle: the body leaves in small pieces. announced: the length of the body is said in the head.
    hangs: nothing is answered before the server closes.
    """

    name: str
    forwarded: bool = False
    spoil: Callable[[Answer, str], Answer] = lambda answer, path: answer
    sent: float | None = 1.0
    trickle: bool = False
    announced: bool = True
    hangs: bool = False

    def __repr__(self) -> str:
        return self.name


def answered(status: int, body: Any, kind: str = "application/json", **headers: str) -> Fault:
    """The same answer whatever is true. body: bytes as they are, anything else as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = Answer(status, {"Content-Type": kind} | named, content)
    return Fault(f"HTTP {status}", spoil=lambda true_answer, path: answer)


def error(status: int, code: int | None = None, **headers: str) -> Fault:
    """RunComfy's JSON error."""
    body = {"code": code or 1000 * status + 1, "message": "in other words"}
    return replace(answered(status, body, **headers), name=f"error {status}")


def page(status: int, forwarded: bool = False) -> Fault:
    """A web page where an answer should be, as proxies and login walls send it."""
    fault = answered(status, PAGE, "text/html; charset=utf-8")
    return replace(fault, name=f"page {status}", forwarded=forwarded)


ERROR_500 = error(500)
WAIT_SECONDS = replace(error(429, Retry_After="1"), name="429 with seconds")
WAIT_DATE = replace(
    error(429, Retry_After=formatdate(SERVER_CLOCK + 1, usegmt=True), Date=formatdate(SERVER_CLOCK, usegmt=True)),
    name="429 with a date",
)
DROPPED_BEFORE = Fault("dropped before", sent=None)
DROPPED_AFTER = Fault("dropped after", forwarded=True, sent=None)
CUT = Fault("cut", forwarded=True, sent=0.5)
CUT_UNNOTICED = Fault("cut unnoticed", forwarded=True, sent=0.5, announced=False)
PAGE_200 = page(200, forwarded=True)
PAGE_502 = page(502, forwarded=True)
LIST = replace(answered(200, [1, 2]), name="list", forwarded=True)
OTHER_FIELDS = replace(answered(200, {"ok": True}), name="other fields", forwarded=True)
SLOW = Fault("slow", forwarded=True, trickle=True)
EMPTY = Fault("empty", forwarded=True, spoil=lambda answer, path: replace(answer, body=b""))
# 307 keeps the method: a submission that follows it would be accepted there.
REDIRECT = Fault("redirect", spoil=lambda answer, path: Answer(307, {"Location": ELSEWHERE + path}))
HANGS = Fault("hangs", hangs=True, sent=None)

FAULTS = (
    ERROR_500,
    WAIT_SECONDS,
    WAIT_DATE,
    DROPPED_BEFORE,
    DROPPED_AFTER,
    CUT,
    CUT_UNNOTICED,
    PAGE_200,
    PAGE_502,
    LIST,
    OTHER_FIELDS,
    SLOW,
    EMPTY,
    REDIRECT,
)


@contextlib.contextmanager
def unreachable() -> Iterator[str]:
    """A base URL at which every connection is refused: the port is taken, and nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@dataclass(frozen=True)
class Call:
    """One call as it arrived. kind: of KINDS, or "other". port: the client's, the same for one connection."""

    kind: str
    path: str
    headers: dict[str, str]
    body: bytes
    port: int

    @property
    def authorized(self) -> bool:
        return "authorization" in self.headers


class FaultyServer:
    """The rehearsal server behind a proxy on http://127.0.0.1.

    Result URLs lead through the proxy too. A status is answered when no job is at work any more, so
    that the first poll finds the end; jobs that are held in the queue are not waited for.
    """

    def __init__(self, behind: RehearsalServer) -> None:
        self.behind = behind
        self.calls: list[Call] = []
        self._faults: dict[str, deque[Fault]] = defaultdict(deque)
        self._arrived = threading.Condition()
        self._closing = threading.Event()
        self._held = False
        self._http = _Server(type("BoundHandler", (_Handler,), {"proxy": self}))
        self.base_url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> FaultyServer:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()
        if self._http.troubles:
            raise AssertionError("the faulty server itself failed") from self._http.troubles[0]

    def inject(self, kind: str, *faults: Fault) -> None:
        """The next calls of a kind meet these faults, one each."""
        with self._arrived:
            self._faults[kind].extend(faults)

    def count(self, kind: str) -> int:
        return sum(call.kind == kind for call in self.calls)

    def wait_for(self, kind: str) -> None:
        """Until a call of this kind has arrived. Raises TimeoutError."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: self.count(kind), timeout=30):
                raise TimeoutError(f"no {kind} within 30 s")

    def take(self, call: Call) -> Fault | None:
        with self._arrived:
            self.calls.append(call)
            self._arrived.notify_all()
            return self._faults[call.kind].popleft() if self._faults[call.kind] else None

    def forward(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        answer = requests.request(
            method, self.behind.base_url + path, data=body, headers=headers, auth=lambda request: request
        )
        kept = ("content-type", "content-range", "etag", "accept-ranges")
        return Answer(
            answer.status_code,
            {name: value for name, value in answer.headers.items() if name.lower() in kept},
            answer.content.replace(self.behind.base_url.encode(), self.base_url.encode()),
        )

    def hold(self) -> None:
        """Keep jobs in the queue, and answer what is asked about them at once."""
        self._held = True
        self.behind.hold()

    def hold_work(self) -> None:
        """Keep the running job at work, and answer what is asked about it at once."""
        self._held = True
        self.behind.hold_work()

    def release(self) -> None:
        self._held = False
        self.behind.release()
        self.behind.release_work()

    def let_jobs_end(self) -> None:
        if not self._held:
            self.behind.wait_for(lambda: all(job.finished_at for job in self.behind.jobs))

    def pause(self, seconds: float | None = TRICKLE_SECONDS) -> None:
        self._closing.wait(seconds)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def server_bind(self) -> None:
        # HTTPServer's own asks the resolver for a host name, which takes seconds on some machines.
        socketserver.TCPServer.server_bind(self)

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.troubles: list[BaseException | None] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, HUNG_UP):
            self.troubles.append(error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultyServer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer_call(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        kinds = (kind for kind, method, path in KINDS if method == self.command and re.match(path, self.path))
        call = Call(next(kinds, "other"), self.path, headers, body, self.client_address[1])
        fault = self.proxy.take(call) or Fault("none", forwarded=True)
        answer = Answer()
        if fault.forwarded:
            if call.kind == "status":
                self.proxy.let_jobs_end()
            passed = {n: v for n, v in headers.items() if n not in ("host", "connection", "content-length")}
            answer = self.proxy.forward(self.command, self.path.removeprefix(ELSEWHERE), passed, body)
        if fault.hangs:
            self.proxy.pause(None)
        if fault.sent is None:
            self.hang_up()
        else:
            self.send(fault, fault.spoil(answer, self.path))

    do_GET = do_POST = answer_call

    def send(self, fault: Fault, answer: Answer) -> None:
        head = f"HTTP/1.1 {answer.status} {responses[answer.status]}\r\n"
        length = {"Content-Length": str(len(answer.body))} if fault.announced else {"Connection": "close"}
        for name, value in (answer.headers | length).items():
            head += f"{name}: {value}\r\n"
        self.wfile.write(head.encode() + b"\r\n")
        body = answer.body[: int(len(answer.body) * fault.sent)]
        step = max(1, len(body) // TRICKLE_PIECES) if fault.trickle else max(1, len(body))
        for start in range(0, len(body), step):
            self.wfile.write(body[start : start + step])
            if fault.trickle:
                self.proxy.pause()
        if len(body) < len(answer.body) or not fault.announced:
            self.close_connection = True

    def hang_up(self) -> None:
        """Reset the connection, as a machine does that lost it."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
            )
            self.connection.close()
