"""A real S3 server (rclone's, which checks signatures): round trip, expiry, refusals, and its end half way."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import requests
from corridor import image_request, live_account, plain_workspace, render, run
from pictures import decoded, photograph
from runcomfy_kling.nodes.errors import HostingError
from runcomfy_kling.nodes.media.host import choose, host_all
from runcomfy_kling.nodes.media.s3 import Bucket
from runcomfy_kling.nodes.media.served import Store
from runcomfy_kling.nodes.media.types import Still
from runcomfy_kling.nodes.media.way import Payload
from runcomfy_kling.nodes.rehearsal.plan import Plan
from runcomfy_kling.nodes.rehearsal.server import RehearsalServer
from runcomfy_kling.nodes.settings import Settings

KEY, SECRET = "the-access-key", "the-very-secret-key"
PNG = Payload(b"\x89PNG a picture", "image/png", "start_image")
RCLONE = Path(sys.executable).with_name("rclone.exe" if os.name == "nt" else "rclone")


class S3:
    """rclone serving a folder, whose folders are the buckets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "stills").mkdir(parents=True)
        self.process = subprocess.Popen(
            [RCLONE, "serve", "s3", folder, "--addr", "127.0.0.1:0", "--auth-key", f"{KEY},{SECRET}", "-vv"],
            env={**os.environ, "RCLONE_CONFIG": os.devnull},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        assert self.process.stderr
        for line in self.process.stderr:
            self.lines.append(line)
            if found := re.search(r"Starting s3 server on \[(http://\S+?)/?\]", line):
                self.url = found[1]
                break
        threading.Thread(target=lambda: self.lines.extend(self.process.stderr or ()), daemon=True).start()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def objects(self) -> list[str]:
        return sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file())


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Those of the environment, and none that the machine may have besides."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    server = S3(tmp_path_factory.mktemp("s3"))
    yield server
    server.kill()


@pytest.fixture
def bucket(s3: S3) -> Bucket:
    return Bucket("stills", s3.url, "", 3600)


def test_a_still_goes_up_and_is_read_through_its_link(s3: S3, tmp_path: Path) -> None:
    settings = Settings(base_url="http://127.0.0.1:1", s3_bucket="stills", s3_endpoint_url=s3.url, s3_prefix="/kling/")
    pixels = photograph("rocket", 1000, 700)
    way = choose(settings, Store(tmp_path), "job", free=False)
    hosted, notes = host_all({"start_image_url": Still(pixels, "start_image")}, way)
    assert notes == []
    answer = requests.get(hosted["start_image_url"], timeout=10)
    assert answer.headers["Content-Type"] == "image/png"
    assert np.array_equal(decoded(answer.content), pixels)
    assert urlsplit(hosted["start_image_url"]).path.startswith("/stills/kling/")
    way.withdraw()
    assert requests.get(hosted["start_image_url"], timeout=10).ok


def test_runcomfy_reads_the_link_by_itself(s3: S3, tmp_path: Path) -> None:
    plans: list[Plan] = []

    def draw(plan: Plan, path: Path) -> None:
        plans.append(plan)
        render(plan, path)

    with RehearsalServer(render=draw, fetch_remote=True) as server:
        account = live_account(server.base_url, tmp_path, s3_bucket="stills", s3_endpoint_url=s3.url)
        request = image_request()
        run(request, account, plain_workspace(tmp_path))
        (job,) = server.jobs
    assert job.body["start_image_url"].startswith(f"{s3.url}/stills/")
    (plan,) = plans
    assert np.array_equal(np.asarray(plan.start), request.body["start_image_url"].pixels)


def test_without_a_place_for_the_still_nothing_is_submitted(s3: S3, tmp_path: Path) -> None:
    with RehearsalServer(render=render) as server:
        account = live_account(server.base_url, tmp_path, s3_bucket="elsewhere", s3_endpoint_url=s3.url)
        assert "NoSuchBucket" in refusal(lambda: run(image_request(), account, plain_workspace(tmp_path)))
        assert server.jobs == []


def test_a_file_goes_up_from_its_path(bucket: Bucket, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(os.urandom(9_000_000))
    answer = requests.get(bucket.put(Payload(path, "video/mp4", "video")), timeout=30)
    assert (answer.headers["Content-Type"], answer.content) == ("video/mp4", path.read_bytes())


@dataclass(frozen=True)
class Counted(Payload):
    """Counts how often it is opened: once to be named by its content, and once more for each upload."""

    opened: Any = None

    def open(self) -> BinaryIO:
        self.opened.append(1)
        return super().open()


def test_the_same_content_is_uploaded_once_by_any_process(s3: S3) -> None:
    data = os.urandom(1000)
    payloads = [Counted(data, "image/png", "start_image", []) for _ in range(3)]
    links = [Bucket("stills", s3.url, "once", 3600).put(payload) for payload in payloads]
    assert [len(payload.opened) for payload in payloads] == [2, 1, 1]
    assert len({urlsplit(link).path for link in links}) == 1


def test_two_nodes_with_one_still_upload_it_once_even_at_the_same_time(bucket: Bucket) -> None:
    payload = Counted(os.urandom(300_000), "image/png", "start_image", [])
    together = threading.Barrier(6)
    links: list[str] = []

    def put() -> None:
        together.wait(30)
        links.append(bucket.put(payload))

    threads = [threading.Thread(target=put) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(links) == 6
    assert len(payload.opened) == 6 + 1


@pytest.mark.parametrize(("seconds", "signed"), [(3600, 3600), (86400.5, 86400), (30 * 86400, 7 * 86400)])
def test_a_link_holds_for_as_long_as_asked_but_seven_days_at_most(s3: S3, seconds: float, signed: int) -> None:
    link = Bucket("stills", s3.url, "", seconds).put(PNG)
    assert parse_qs(urlsplit(link).query)["X-Amz-Expires"] == [str(signed)]


def test_a_link_ends(s3: S3) -> None:
    link = Bucket("stills", s3.url, "", 2).put(PNG)
    statuses = (requests.get(link, timeout=10).status_code for _ in range(20_000))
    assert next(status for status in statuses if status != 200) in (400, 403)


def test_a_link_opens_nothing_else(s3: S3, bucket: Bucket) -> None:
    link, other = bucket.put(PNG), bucket.put(Payload(b"other", "image/png", "end_image"))
    assert requests.get(link.replace(urlsplit(link).path, urlsplit(other).path), timeout=10).status_code == 403
    assert requests.get(other.split("?")[0], timeout=10).status_code in (400, 403)
    assert requests.put(link, data=b"forged", timeout=10).status_code == 403


def refusal(work: Callable[[], object]) -> str:
    """The message of a HostingError, which is all that a log would show of it, and which holds no credentials."""
    with pytest.raises(HostingError) as raised:
        work()
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None or raised.value.__suppress_context__
    message = str(raised.value)
    assert SECRET not in message
    assert KEY not in message
    assert "X-Amz" not in message
    return message


def test_a_wrong_secret(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    message = refusal(lambda: Bucket("stills", s3.url, "", 3600).put(PNG))
    assert "hush-hush" not in message
    assert message.startswith("start_image could not be hosted: the bucket 'stills' at 127.0.0.1 refused it")
    assert "Nothing was submitted" in message
    assert "secret key is wrong" in message


def test_an_unknown_key(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a-stranger")
    message = refusal(lambda: Bucket("stills", s3.url, "", 3600).put(PNG))
    assert "a-stranger" not in message
    assert "check the AWS credentials" in message


def test_a_missing_bucket(s3: S3) -> None:
    message = refusal(lambda: Bucket("elsewhere", s3.url, "", 3600).put(PNG))
    assert "the bucket 'elsewhere' at 127.0.0.1 refused it (NoSuchBucket)" in message
    assert "correct RUNCOMFY_KLING_S3_BUCKET" in message


def test_no_credentials_at_all(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "set AWS_ACCESS_KEY_ID" in refusal(lambda: Bucket("stills", s3.url, "", 3600))


@pytest.mark.parametrize("endpoint", ["not an address", "ftp://files.test"])
def test_an_endpoint_that_is_no_address(endpoint: str) -> None:
    assert "S3_ENDPOINT" in refusal(
        lambda: choose(Settings(s3_bucket="stills", s3_endpoint_url=endpoint), Store(Path()), "job", free=False)
    )


def test_a_bucket_on_this_machine_is_no_use_to_the_real_runcomfy(s3: S3) -> None:
    settings = Settings(s3_bucket="stills", s3_endpoint_url=s3.url)
    assert "127.0.0.1 means this machine alone" in refusal(lambda: choose(settings, Store(Path()), "job", free=False))


def test_aws_itself_is_addressed_by_a_host_per_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    link = Bucket("stills", "", "", 3600).link("a.png")
    assert urlsplit(link).hostname == "stills.s3.eu-central-1.amazonaws.com"
    dotted = Bucket("my.stills", "", "", 3600).link("a.png")
    assert urlsplit(dotted)[1:3] == ("s3.eu-central-1.amazonaws.com", "/my.stills/a.png")


@dataclass(frozen=True)
class Interrupted(Payload):
    """Ends the server while it is being uploaded."""

    server: Any = None
    opened: Any = None

    def open(self) -> BinaryIO:
        self.opened.append(1)
        return super().open() if len(self.opened) == 1 else Ending(self.data, self.server)


class Ending(io.BytesIO):
    def __init__(self, data: Any, server: S3) -> None:
        super().__init__(data)
        self._server = server

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > 0:
            self._server.kill()
        return super().read(size)


def test_a_server_that_goes_half_way(tmp_path: Path) -> None:
    server = S3(tmp_path / "s3")
    bucket = Bucket("stills", server.url, "", 3600)
    payload = Interrupted(os.urandom(8_000_000), "image/png", "start_image", server, [])
    message = refusal(lambda: bucket.put(payload))
    assert server.process.returncode is not None
    assert "Nothing was submitted" in message
    assert "check that its endpoint answers" in message


class Faulty(BaseHTTPRequestHandler):
    """An S3 server that is busy for the first `failures` uploads, and may not show what it keeps."""

    failures = 0
    link_status = 200
    may_look = False
    kept: dict[str, bytes] = {}
    puts: list[str] = []

    def do_HEAD(self) -> None:
        self._answer(200 if self.may_look else 403, self.kept.get(self.path, b""))

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.puts.append(self.path)
        if len(self.puts) <= self.failures:
            self._answer(503, b"<Error><Code>SlowDown</Code></Error>")
        else:
            self.kept[self.path] = data
            self._answer(200)

    def do_GET(self) -> None:
        self._answer(self.link_status, self.kept[urlsplit(self.path).path])

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def faulty() -> Iterator[Callable[..., tuple[Bucket, type[Faulty]]]]:
    servers = []

    def start(**faults: int) -> tuple[Bucket, type[Faulty]]:
        handler = type("Handler", (Faulty,), {**faults, "kept": {}, "puts": []})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return Bucket("stills", f"http://127.0.0.1:{server.server_port}", "", 3600), handler

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_an_upload_that_fails_is_tried_again(faulty: Callable[..., tuple[Bucket, type[Faulty]]]) -> None:
    bucket, server = faulty(failures=1)
    link = bucket.put(PNG)
    assert len(server.puts) == 2
    assert server.kept[urlsplit(link).path] == PNG.data


def test_an_object_of_another_length_is_replaced(faulty: Callable[..., tuple[Bucket, type[Faulty]]]) -> None:
    bucket, server = faulty(may_look=True)
    path = urlsplit(bucket.put(PNG)).path
    server.kept[path] = PNG.data[:3]
    bucket.put(PNG)
    bucket.put(PNG)
    assert server.kept[path] == PNG.data
    assert len(server.puts) == 2


def test_a_link_that_does_not_answer_is_found_out_before_anything_is_paid(
    faulty: Callable[..., tuple[Bucket, type[Faulty]]],
) -> None:
    bucket, _ = faulty(link_status=400)
    assert "answers its link with HTTP 400" in refusal(lambda: bucket.put(PNG))
