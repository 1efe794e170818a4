"""The own public address: what the route answers, to whom, and for how long. A real aiohttp server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import aiohttp
import numpy as np
import pytest
import requests
from aiohttp import web
from corridor import image_request, live_account, plain_workspace, render, run
from pictures import decoded, photograph
from runcomfy_kling.nodes.errors import FailedError, HostingError
from runcomfy_kling.nodes.media.host import Inline, choose, host_all
from runcomfy_kling.nodes.media.served import ROUTE, OwnAddress, RateLimit, Store, route_handler
from runcomfy_kling.nodes.media.types import Still
from runcomfy_kling.nodes.media.way import Payload
from runcomfy_kling.nodes.rehearsal.server import RehearsalServer
from runcomfy_kling.nodes.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
PNG = Payload(b"\x89PNG a picture", "image/png", "start_image")
LOCAL_API = "http://127.0.0.1:1"


class Server:
    """ComfyUI's part: an aiohttp server with the route, and a file beside it that is none of its business."""

    def __init__(self, store: Store, limit: RateLimit) -> None:
        self._loop = asyncio.new_event_loop()
        app = web.Application()
        app.router.add_get(f"{ROUTE}/{{name}}", route_handler(store, limit, pause=0))
        self._runner = web.AppRunner(app)
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self.origin = self.run(self._start())

    async def _start(self) -> str:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        return "http://{}:{}".format(*self._runner.addresses[0])

    def run(self, work):  # type: ignore[no-untyped-def]
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def stop(self) -> None:
        self.run(self._runner.cleanup())
        self._loop.call_soon_threadsafe(self._loop.stop)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "private" / "media")


@pytest.fixture
def serve(store: Store) -> Iterator[Callable[..., str]]:
    servers: list[Server] = []

    def start(limit: RateLimit | None = None) -> str:
        servers.append(Server(store, limit or RateLimit(per_second=0, burst=1000)))
        return servers[-1].origin

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def origin(serve: Callable[..., str]) -> str:
    return serve()


def test_a_still_answers_while_the_generation_runs_and_never_after(origin: str, store: Store) -> None:
    way = choose(Settings(base_url=LOCAL_API, public_origin=origin), store, "fingerprint", free=False)
    assert isinstance(way, OwnAddress)
    pixels = photograph("coffee", 640, 480)
    hosted, notes = host_all({"start_image_url": Still(pixels, "start_image")}, way)
    url = hosted["start_image_url"]
    assert notes == []
    assert url.startswith(f"{origin}{ROUTE}/")
    for ask in (requests.get, requests.head):
        answer = ask(url, timeout=10)
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "image/png"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert not answer.cookies
    assert requests.get(url, timeout=10).content.startswith(b"\x89PNG")
    way.withdraw()
    assert requests.get(url, timeout=10).status_code == 404


@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
def test_the_link_lives_exactly_as_long_as_the_job(serve: Callable[..., str], tmp_path: Path, outcome: str) -> None:
    seen: list[requests.Response] = []
    request = image_request()
    with RehearsalServer(render=render) as server:
        server.outcome = outcome
        server.hold_work()
        account = live_account(server.base_url, tmp_path, public_origin=serve())

        def look() -> None:
            (job,) = server.wait_for(lambda: [job for job in server.jobs if job.state == "in_progress"])
            seen.append(requests.get(job.body["start_image_url"], timeout=10))
            server.release_work()

        looking = threading.Thread(target=look)
        looking.start()
        with contextlib.suppress(FailedError):
            run(request, account, plain_workspace(tmp_path))
        looking.join()
    (during,) = seen
    assert np.array_equal(decoded(during.content), request.body["start_image_url"].pixels)
    assert requests.get(during.url, timeout=10).status_code == 404


@pytest.mark.parametrize("content_type", ["image/png", "image/jpeg", "video/mp4"])
def test_each_type_is_served_as_what_it_is(origin: str, store: Store, tmp_path: Path, content_type: str) -> None:
    path = tmp_path / "source"
    path.write_bytes(os.urandom(3_000_000))
    name = store.publish(Payload(path, content_type, "video"), "job")
    answer = requests.get(f"{origin}{ROUTE}/{name}", timeout=10)
    assert (answer.headers["Content-Type"], answer.content) == (content_type, path.read_bytes())


def test_withdrawing_ends_only_what_one_generation_published(store: Store) -> None:
    mine = [store.publish(PNG, "mine") for _ in range(3)]
    other = store.publish(PNG, "other")
    assert len({*mine, other}) == 4
    store.withdraw("mine")
    assert [store.find(name) for name in mine] == [None] * 3
    assert store.find(other) is not None


def test_a_withdrawn_way_publishes_nothing_more(store: Store, origin: str) -> None:
    way = OwnAddress(origin, store, "job")
    way.withdraw()
    with pytest.raises(HostingError, match="Nothing was submitted"):
        way.put(PNG)


def test_what_is_needed_survives_this_process_and_another_withdraws_it(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "private" / "media"
    code = (
        "import pathlib, runpy, sys\n"
        "runpy.run_path(sys.argv[1])['load_pack']()\n"
        "from runcomfy_kling.nodes.media.served import Store\n"
        "from runcomfy_kling.nodes.media.way import Payload\n"
        "print(Store(pathlib.Path(sys.argv[2])).publish(Payload(b'still', 'image/png', 'start_image'), 'job'))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "run.py"), str(folder)], capture_output=True, text=True, check=True
    )
    name = run.stdout.strip()
    found = store.find(name)
    assert found is not None
    assert found[0].read_bytes() == b"still"
    store.withdraw("job")
    assert list(folder.iterdir()) == []


def test_the_sweep_takes_what_nobody_withdrew_for_eight_days(store: Store, tmp_path: Path) -> None:
    old, new = store.publish(PNG, "old"), store.publish(PNG, "new")
    unfinished = tmp_path / "private" / "media" / f"{new}.part"
    unfinished.write_bytes(b"half")
    nine_days_ago = time.time() - 9 * 24 * 3600
    for path in (tmp_path / "private" / "media" / old, unfinished):
        os.utime(path, (nine_days_ago, nine_days_ago))
    store.sweep()
    assert store.find(old) is None
    assert not unfinished.exists()
    assert store.find(new) is not None


def test_sweeping_or_withdrawing_where_nothing_ever_was(tmp_path: Path) -> None:
    store = Store(tmp_path / "nowhere")
    store.sweep()
    store.withdraw("job")
    assert store.find("a" * 16 + "-" + "b" * 48 + ".png") is None


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_paid(tmp_path: Path) -> None:
    (tmp_path / "media").write_text("a file in the way")
    with pytest.raises(HostingError, match=r"start_image could not be written .* Nothing was submitted"):
        Store(tmp_path / "media").publish(PNG, "job")


@pytest.mark.parametrize(
    "path",
    [
        "{name}.part",
        "{NAME}",
        "{name}/",
        "%2e/{name}",
        "..%2f..%2fsecret.png",
        "..%5c..%5csecret.png",
        "%2e%2e/secret.png",
        "....//secret.png",
        "secret.png",
        "%00",
        "{name}%00",
        "{name}%0a",
        "{tag}",
        "{tag}-*",
        "*",
        "",
        "0123456789abcdef-{zeros}.png",
        "{tag}-{zeros}.png",
        "{stem}.txt",
        "{stem}.jpg",
        "C:%5csecret.png",
        "%ef%bc%8e%ef%bc%8e/secret.png",
        "a" * 4000,
    ],
)
def test_guesses_and_path_tricks_find_nothing(origin: str, store: Store, tmp_path: Path, path: str) -> None:
    name = store.publish(PNG, "job")
    (tmp_path / "private" / "media" / "secret.png").write_bytes(b"not yours")
    (tmp_path / "private" / "media" / f"{name}.part").write_bytes(b"not yours")
    for outside in (tmp_path / "secret.png", tmp_path / "private" / "secret.png"):
        outside.write_bytes(b"not yours")
    stem, tag = name.split(".")[0], name.split("-")[0]
    filled = path.format(name=name, NAME=name.upper(), stem=stem, tag=tag, zeros="0" * 48)
    # Prepared by hand: requests would tidy the path before it is sent.
    with requests.Session() as session:
        request = session.prepare_request(requests.Request("GET", origin))
        request.url = f"{origin}{ROUTE}/{filled}"
        answer = session.send(request, timeout=10)
    assert answer.status_code == 404
    assert b"not yours" not in answer.content
    assert requests.get(f"{origin}{ROUTE}/{name}", timeout=10).content == PNG.data


def test_only_reading_is_answered(origin: str, store: Store) -> None:
    url = f"{origin}{ROUTE}/{store.publish(PNG, 'job')}"
    for method in ("POST", "PUT", "DELETE"):
        assert requests.request(method, url, data=b"x", timeout=10).status_code == 405
    assert requests.get(url, timeout=10).content == PNG.data


def test_no_cache_keeps_that_a_still_was_missing(origin: str) -> None:
    answer = requests.get(f"{origin}{ROUTE}/{'a' * 16}-{'b' * 48}.png", timeout=10)
    assert (answer.status_code, answer.headers["Cache-Control"]) == (404, "no-store")


def test_a_flood_of_guesses_is_limited_and_the_still_answers_all_along(serve: Callable[..., str], store: Store) -> None:
    origin = serve(RateLimit(per_second=0, burst=10))
    name = store.publish(PNG, "job")

    async def flood() -> tuple[list[int], list[bytes]]:
        async with aiohttp.ClientSession() as session:

            async def guess(number: int) -> int:
                async with session.get(f"{origin}{ROUTE}/{number}.png") as answer:
                    return answer.status

            async def fetch() -> bytes:
                async with session.get(f"{origin}{ROUTE}/{name}") as answer:
                    return await answer.read()

            guesses = asyncio.gather(*map(guess, range(500)))
            fetched = asyncio.gather(*(fetch() for _ in range(50)))
            return await guesses, await fetched

    statuses, contents = asyncio.run(flood())
    assert (statuses.count(404), statuses.count(429)) == (10, 490)
    assert contents == [PNG.data] * 50


def test_the_limit_recovers_with_time() -> None:
    now = 0.0
    limit = RateLimit(per_second=2, burst=3, clock=lambda: now)
    assert [limit.take() for _ in range(4)] == [True, True, True, False]
    now = 0.4
    assert not limit.take()
    now = 0.5
    assert [limit.take() for _ in range(2)] == [True, False]
    now = 3600.0
    assert [limit.take() for _ in range(4)] == [True, True, True, False]


def test_pausing_is_bounded(store: Store) -> None:
    """Beyond `most_paused` a guess is turned away at once, even while others never end their pause."""

    async def ask() -> tuple[list[int], int]:
        app = web.Application()
        app.router.add_get(f"{ROUTE}/{{name}}", route_handler(store, RateLimit(0, 0), pause=3600, most_paused=2))
        runner = web.AppRunner(app, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = "http://{}:{}{}/guess".format(*runner.addresses[0], ROUTE)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30)) as session:

            async def guess() -> int:
                async with session.get(url) as answer:
                    return answer.status

            guesses = [asyncio.create_task(guess()) for _ in range(5)]
            turned_away = [await next_one for _, next_one in zip(range(3), asyncio.as_completed(guesses), strict=False)]
            paused = [task for task in guesses if not task.done()]
            for task in paused:
                task.cancel()
            await asyncio.gather(*paused, return_exceptions=True)
        await runner.cleanup()
        return turned_away, len(paused)

    assert asyncio.run(ask()) == ([429, 429, 429], 2)


class Elsewhere(BaseHTTPRequestHandler):
    """What may stand at an address that is not this ComfyUI."""

    status, body, location = 200, b"<html>Welcome</html>", ""

    def do_GET(self) -> None:
        self.send_response(self.status)
        if self.location:
            self.send_header("Location", self.location)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({}, "something else answered"),
        ({"body": b""}, "something else answered"),
        ({"status": 401}, "HTTP 401"),
        ({"status": 404}, "HTTP 404"),
        ({"status": 302, "location": "/login"}, "HTTP 302"),
        ({"status": 503}, "HTTP 503"),
    ],
    ids=str,
)
def test_an_address_where_something_else_answers(store: Store, tmp_path: Path, answer: dict, words: str) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Elsewhere,), answer))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        origin = f"http://127.0.0.1:{server.server_port}"
        settings = Settings(base_url=LOCAL_API, public_origin=origin)
        way = choose(settings, store, "job", free=False)
        assert isinstance(way, Inline)
        assert words in way.note
        with pytest.raises(HostingError, match=f"{words}.*Nothing was submitted"):
            choose(Settings(base_url=LOCAL_API, public_origin=origin, hosting="comfyui"), store, "job", free=False)
    finally:
        server.shutdown()
        server.server_close()
    assert list((tmp_path / "private" / "media").iterdir()) == []


def test_an_address_where_nobody_answers(store: Store) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    server.server_close()
    settings = Settings(base_url=LOCAL_API, public_origin=f"http://127.0.0.1:{server.server_port}")
    way = choose(settings, store, "job", free=False)
    assert isinstance(way, Inline)
    assert "did not come back (ConnectionError)" in way.note


def test_another_comfyui_with_another_folder_does_not_pass_for_this_one(origin: str, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    way = choose(Settings(base_url=LOCAL_API, public_origin=origin), other, "job", free=False)
    assert isinstance(way, Inline)
    assert "HTTP 404" in way.note
