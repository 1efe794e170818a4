"""The rehearsal server: takes jobs, queues them, renders them one after the other, serves the files."""

from __future__ import annotations

import argparse
import contextlib
import socket
import socketserver
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from .animatic import render
from .handler import Handler
from .plan import Plan, plan
from .validation import load_schemas

OUTCOMES = ("succeeded", "failed", "no_output", "cancelled", "two_videos")


def _now() -> str:
    return datetime.now(timezone.utc).isoformat()


@dataclass(eq=False)
class Job:
    """One accepted submission.

    state: in_queue, in_progress, completed or cancelled, as /status says it.
    ending: succeeded, failed or cancelled, as /result says it once finished_at is set.
    outcome: what it was accepted for, one of OUTCOMES.
    """

    request_id: str
    model_id: str
    body: dict[str, Any]
    token: str
    outcome: str
    leaves_queue_at: float
    created_at: str = field(default_factory=_now)
    finished_at: str | None = None
    state: str = "in_queue"
    ending: str = ""
    error: str = ""
    cost_usd: float = 0.0
    files: list[Path] = field(default_factory=list)


class _HTTPServer(ThreadingHTTPServer):
    request_queue_size = 128  # a hundred clients may arrive at once

    def server_bind(self) -> None:
        # HTTPServer's own asks the resolver for a host name, which takes seconds on some machines.
        socketserver.TCPServer.server_bind(self)

    def __init__(self, port: int, handler: type[Handler]):
        super().__init__(("127.0.0.1", port), handler)
        self.open_sockets: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open_sockets.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.open_sockets.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that hangs up is not news


class RehearsalServer:
    """RunComfy's Model API on http://127.0.0.1, free of charge.

    token: None takes any bearer token, a string only that one.
    queue_seconds, work_seconds: how long at least a job is in_queue, then in_progress.
    fetch_remote: fetch the http(s) URLs a body points at; otherwise a placeholder is drawn for them.
    folder: where result files go; None makes a temporary one that goes with the server.
    render: writes the plan of a job as an MP4 to a path.
    port: 0 takes a free one.
    keep_bodies: False forgets the body of a job, with the stills in it, once the job has ended.

    `outcome` and `refuse` may be set at any time and hold for submissions from then on: how they end
    (one of OUTCOMES), and the code (400002, 403001, …) with which they are refused, or None.
    """

    def __init__(
        self,
        *,
        token: str | None = None,
        queue_seconds: float = 0.0,
        work_seconds: float = 0.0,
        fetch_remote: bool = False,
        base_price_usd: float = 0.0,
        folder: Path | None = None,
        render: Callable[[Plan, Path], None] = render,
        port: int = 0,
        keep_bodies: bool = True,
    ):
        self.token = token
        self.queue_seconds = queue_seconds
        self.work_seconds = work_seconds
        self.fetch_remote = fetch_remote
        self.base_price_usd = base_price_usd
        self.outcome = "succeeded"
        self.refuse: int | None = None
        self.schemas = load_schemas()
        self.jobs: list[Job] = []
        self.calls: list[tuple[str, str]] = []
        self.files: dict[str, Path] = {}
        self._queue: list[Job] = []
        self._by_id: dict[str, Job] = {}
        self._keep_bodies = keep_bodies
        self._render = render
        self._folder = folder
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._changed = threading.Condition()
        self._held = self._work_held = self._stopping = False
        self._worker: threading.Thread | None = None
        self._http = _HTTPServer(port, type("BoundHandler", (Handler,), {"rehearsal": self}))
        self.base_url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def start(self) -> RehearsalServer:
        if self._folder is None:
            # A render may still be writing when the server stops.
            self._temporary = tempfile.TemporaryDirectory(prefix="rehearsal-", ignore_cleanup_errors=True)
            self._folder = Path(self._temporary.name)
        threading.Thread(target=self._http.serve_forever, args=(0.02,), name="rehearsal", daemon=True).start()
        return self

    def stop(self) -> None:
        """Close every connection, kept-alive ones included; what is queued is dropped."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._http.shutdown()
        for connection in list(self._http.open_sockets):
            with contextlib.suppress(OSError):  # the client was faster
                connection.shutdown(socket.SHUT_RDWR)
        self._http.server_close()
        if self._temporary:
            self._temporary.cleanup()

    __enter__ = start

    def __exit__(self, *error: object) -> None:
        self.stop()

    def hold(self) -> None:
        """Keep jobs in_queue until release()."""
        self._set(_held=True)

    def release(self) -> None:
        self._set(_held=False)

    def hold_work(self) -> None:
        """Keep the running job in_progress until release_work()."""
        self._set(_work_held=True)

    def release_work(self) -> None:
        self._set(_work_held=False)

    def wait_for(self, predicate: Callable[[], Any], timeout: float = 30.0) -> Any:
        """The first true value of `predicate`, asked after every call and every change, or TimeoutError."""
        with self._changed:
            value = self._changed.wait_for(predicate, timeout)
        if not value:
            raise TimeoutError(f"the rehearsal server did not get there within {timeout} s")
        return value

    def note_call(self, method: str, path: str) -> None:
        with self._changed:
            self.calls.append((method, path))
            self._changed.notify_all()

    def accept(self, token: str, model_id: str, body: dict[str, Any]) -> Job:
        leaves_queue_at = time.monotonic() + self.queue_seconds
        with self._changed:
            job = Job(str(uuid.uuid4()), model_id, body, token, self.outcome, leaves_queue_at)
            self.jobs.append(job)
            self._queue.append(job)
            self._by_id[job.request_id] = job
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name="rehearsal-render", daemon=True)
                self._worker.start()
            self._changed.notify_all()
        return job

    def find(self, request_id: str) -> Job | None:
        return self._by_id.get(request_id)

    def state_of(self, job: Job) -> tuple[str, int | None]:
        """The job's state and, while it is queued, its place in the queue (1: it is next)."""
        with self._changed:
            return job.state, self._queue.index(job) + 1 if job in self._queue else None

    def cancel(self, job: Job) -> str:
        with self._changed:
            if job not in self._queue:
                return "not_cancellable"
            self._queue.remove(job)
            self._finish(job, "cancelled")
        return "cancelled"

    def _set(self, **flags: bool) -> None:
        with self._changed:
            vars(self).update(flags)
            self._changed.notify_all()

    def _finish(self, job: Job, ending: str) -> None:
        with self._changed:
            job.state = "cancelled" if ending == "cancelled" else "completed"
            job.ending = ending
            job.finished_at = _now()
            if not self._keep_bodies:
                job.body = {}
            self._changed.notify_all()

    def _work(self) -> None:
        while job := self._next():
            began = time.monotonic()
            ending = "succeeded"
            try:
                if job.outcome in ("succeeded", "two_videos"):
                    self._make(job)
                elif job.outcome == "failed":
                    ending, job.error = "failed", "the rehearsal was asked to fail"
                elif job.outcome == "cancelled":
                    ending = "cancelled"
            except Exception as problem:  # a still that cannot be read fails its job, not the queue
                ending, job.error = "failed", str(problem)
            self._linger(began + self.work_seconds)
            self._finish(job, ending)

    def _next(self) -> Job | None:
        """The head of the queue, taken into work; None when the server stops."""
        with self._changed:
            while not self._stopping:
                remaining = None
                if self._queue and not self._held:
                    remaining = self._queue[0].leaves_queue_at - time.monotonic()
                    if remaining <= 0:
                        job = self._queue.pop(0)
                        job.state = "in_progress"
                        self._changed.notify_all()
                        return job
                self._changed.wait(remaining)
        return None

    def _linger(self, until: float) -> None:
        with self._changed:
            while not self._stopping and (self._work_held or time.monotonic() < until):
                self._changed.wait(None if self._work_held else until - time.monotonic())

    def _make(self, job: Job) -> None:
        assert self._folder is not None
        for take in range(1, 3 if job.outcome == "two_videos" else 2):
            animatic = plan(job.model_id, job.body, take=take, fetch_remote=self.fetch_remote)
            path = self._folder / f"{job.request_id}-{take}.mp4"
            self._render(animatic, path)
            job.files.append(path)
            self.files[path.name] = path
            job.cost_usd = round(self.base_price_usd * animatic.seconds, 6)


def main() -> None:
    """Serve until killed; the first line printed is the base URL."""
    options = argparse.ArgumentParser(description=main.__doc__)
    options.add_argument("--port", type=int, default=0)
    options.add_argument("--queue-seconds", type=float, default=0.0)
    options.add_argument("--work-seconds", type=float, default=0.0)
    options.add_argument("--token")
    with RehearsalServer(**vars(options.parse_args())) as server:
        print(server.base_url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
