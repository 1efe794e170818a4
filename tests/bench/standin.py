"""A server that works on any number of clips at once, in a process of its own, and keeps the times.

    python standin.py --clip FILE [--work SECONDS] [--sigma S] [--upload SECONDS]

It speaks the few calls of RunComfy's Model API that a generation makes. Every job takes a log-normal
time around --work, every submission --upload longer than loopback does. GET /times tells, by request id,
when a submission began to arrive and was accepted, when its job ended, and when that was first asked
about, all in Unix seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import random
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Times:
    began: float
    accepted: float
    ends: float
    noticed: float | None = None


class Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.options = options
        self.rng = random.Random(1)
        self.jobs: dict[str, Times] = {}
        self.lock = threading.Lock()
        self.base_url = f"http://127.0.0.1:{self.server_address[1]}"

    def accept(self, began: float) -> str:
        now = time.time()
        with self.lock:
            work = self.options.work * math.exp(self.rng.gauss(0, self.options.sigma))
            request_id = str(uuid.uuid4())
            self.jobs[request_id] = Times(began, now, now + work)
        return request_id


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        began = time.time()
        left = int(self.headers["Content-Length"])
        while left:
            left -= len(self.rfile.read(min(left, 1 << 20)))
        time.sleep(self.server.options.upload)
        self.answer({"request_id": self.server.accept(began)})

    def do_GET(self) -> None:
        if self.path == "/times":
            self.answer({name: asdict(times) for name, times in self.server.jobs.items()})
        elif self.path == "/clip.mp4":
            self.send_clip()
        else:
            *_, request_id, what = self.path.partition("?")[0].split("/")
            self.send_state(request_id, what)

    def send_state(self, request_id: str, what: str) -> None:
        times = self.server.jobs[request_id]
        answer: dict[str, object] = {"request_id": request_id, "status": "in_progress"}
        if (now := time.time()) >= times.ends:
            times.noticed = times.noticed or now
            answer["status"] = "completed"
            if what == "result":
                answer |= {"status": "succeeded", "output": {"video": f"{self.server.base_url}/clip.mp4"}}
        self.answer(answer)

    def send_clip(self) -> None:
        with self.server.options.clip.open("rb") as file:
            self.send_response(200)
            self.send_header("Content-Type", "video/mp4")
            self.send_header("Content-Length", str(self.server.options.clip.stat().st_size))
            self.end_headers()
            self.connection.sendfile(file)

    def answer(self, body: dict[str, object]) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextlib.contextmanager
def standin(clip: Path, *, work: float = 0.0, sigma: float = 0.0, upload: float = 0.0) -> Iterator[str]:
    """Yields the base URL."""
    command = [sys.executable, str(Path(__file__).resolve()), f"--clip={clip}"]
    command += [f"--work={work}", f"--sigma={sigma}", f"--upload={upload}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def times(base_url: str) -> dict[str, Times]:
    with urllib.request.urlopen(f"{base_url}/times") as answer:
        return {name: Times(**fields) for name, fields in json.load(answer).items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clip", type=Path, required=True)
    for name in ("--work", "--sigma", "--upload"):
        parser.add_argument(name, type=float, default=0.0)
    server = Server(parser.parse_args())
    print(server.base_url, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
