"""The calls of the API over real HTTP: what is sent, and how every shape of answer is read."""

from __future__ import annotations

import json
import threading
import traceback
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from corridor import TOKEN, render
from faults import (
    CUT,
    DROPPED_AFTER,
    DROPPED_BEFORE,
    HANGS,
    SERVER_CLOCK,
    SLOW,
    Answer,
    Fault,
    FaultyServer,
    answered,
    unreachable,
)
from runcomfy_kling.nodes.errors import AccountError, RefusedError, UnavailableError, UncertainError
from runcomfy_kling.nodes.rehearsal.server import RehearsalServer
from runcomfy_kling.nodes.runcomfy.client import Client, NotNow, Price, Result, Status, to_json
from runcomfy_kling.nodes.runcomfy.download import Download

MODEL = "kling/kling-3.0/pro/text-to-video"
BODY = {"prompt": "Zwei Gläser, 두 잔.", "duration": 3, "sound": True}


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with RehearsalServer(token=TOKEN, render=render, base_price_usd=0.14) as behind, FaultyServer(behind) as proxy:
        yield proxy


@pytest.fixture
def client(server: FaultyServer) -> Client:
    return Client(server.base_url, TOKEN)


def test_a_generation_call_by_call(server: FaultyServer, client: Client) -> None:
    request_id = client.submit(MODEL, BODY)
    assert client.status(request_id) == Status(ended=True, working=False, queue_position=None)
    result = client.result(request_id)
    assert (result.state, result.cost_usd, result.error) == ("succeeded", pytest.approx(0.42), "")
    assert result.videos == (f"{server.base_url}/files/{request_id}-1.mp4",)
    assert client.cancel(request_id) is False
    assert client.price(MODEL) == Price(0.14, "second", "")
    assert all(call.headers["authorization"] == f"Bearer {TOKEN}" for call in server.calls)


def test_the_body_is_sent_as_it_is(server: FaultyServer, client: Client) -> None:
    client.submit(MODEL, BODY)
    (call,) = server.calls
    assert call.path == f"/v1/models/{MODEL}"
    assert json.loads(call.body) == BODY
    assert call.headers["content-type"] == "application/json"


def test_base64_is_sent_as_the_string_it_is() -> None:
    uris = [f"data:image/png;base64,{letter * 40}" for letter in "ab"]
    body = {"prompt": 'Say "a", \\ and\n…', "start_image_url": uris[0], "elements": [{"all": [uris[1], ""]}]}
    spliced = body | {"start_image_url": uris[0].encode(), "elements": [{"all": [uris[1].encode(), ""]}]}
    assert to_json(spliced) == to_json(body)
    assert json.loads(to_json(body)) == body


def test_a_body_that_is_no_json_leaves_nowhere(server: FaultyServer, client: Client) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        client.submit(MODEL, {"cfg_scale": float("nan")})
    assert server.calls == []


def test_a_submission_has_a_connection_of_its_own(server: FaultyServer, client: Client) -> None:
    request_id = client.submit(MODEL, BODY)
    client.status(request_id)
    client.submit(MODEL, BODY)
    client.status(request_id)
    first, before, second, after = (call.port for call in server.calls)
    assert before == after
    assert len({first, before, second}) == 3


def test_the_id_is_quoted_into_the_path(server: FaultyServer, client: Client) -> None:
    with pytest.raises(UnavailableError):
        client.status("../models/x?y#z")
    assert server.calls[0].path == "/v1/requests/..%2Fmodels%2Fx%3Fy%23z/status"


def test_a_netrc_entry_does_not_replace_the_token(
    server: FaultyServer, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    client.status(client.submit(MODEL, BODY))
    assert {call.headers["authorization"] for call in server.calls} == {f"Bearer {TOKEN}"}


@pytest.mark.parametrize(("answer", "request_id"), [("abc-1", "abc-1"), (" abc-1\n", "abc-1"), (12345, "12345")])
def test_request_ids_come_as_text_or_number(server: FaultyServer, client: Client, answer: Any, request_id: str) -> None:
    server.inject("submit", answered(200, {"request_id": answer}))
    assert client.submit(MODEL, BODY) == request_id


GZIP_LIE = answered(200, b'{"request_id": "abc"}', Content_Encoding="gzip")


@pytest.mark.parametrize(
    "fault",
    [
        *(answered(200, {"request_id": nothing}) for nothing in ("", " ", None, [], {}, ["abc"])),
        *(answered(status, {"request_id": "abc"}) for status in (403, 500, 503)),
        *(answered(403, body) for body in ({}, [], "no", None, {"ok": False}, {"code": True}, b"\xff\xfe{")),
        answered(200, b'{"request_id": "abc"'),
        GZIP_LIE,
    ],
    ids=lambda fault: repr(fault.spoil(None, "").body),
)
def test_an_answer_to_a_submission_that_says_nothing_is_doubt(
    server: FaultyServer, client: Client, fault: Fault
) -> None:
    server.inject("submit", fault)
    with pytest.raises(UncertainError):
        client.submit(MODEL, BODY)
    assert server.count("submit") == 1


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (400, {"code": 400002, "message": "no money"}, RefusedError, "balance is used up “no money” (400002)"),
        (400, {"code": "400002", "message": "no money"}, RefusedError, "balance is used up “no money” (400002)"),
        (400, {"error": {"code": 400002, "message": "no money"}}, RefusedError, "used up “no money” (400002)"),
        (400, {"detail": {"error_code": 400004, "msg": "expired"}}, AccountError, "token “expired” (400004)"),
        (400, {"errorCode": 400001, "error": "wrong model"}, RefusedError, "“wrong model” (400001)"),
        (401, {"detail": "Not authenticated"}, AccountError, "token “Not authenticated” (HTTP 401)"),
        (402, {"error": "top up"}, RefusedError, "balance is used up “top up” (HTTP 402)"),
        (403, {"code": 403001}, RefusedError, "refused the request (403001)"),
        (413, {"title": "Payload too large"}, RefusedError, "“Payload too large” (HTTP 413)"),
        (422, {"detail": [{"loc": ["body", "duration"], "msg": "too long"}]}, RefusedError, "duration"),
        (422, {"message": "invalid", "detail": [{"loc": ["body", "sound"]}]}, RefusedError, "sound"),
        (400, {"code": "²", "message": "odd"}, RefusedError, "“odd” (HTTP 400)"),
    ],
)
def test_refusals_in_every_envelope(
    server: FaultyServer, client: Client, status: int, body: Any, kind: type[Exception], words: str
) -> None:
    server.inject("submit", answered(status, body))
    with pytest.raises(kind) as caught:
        client.submit(MODEL, BODY)
    assert words in str(caught.value)
    assert "Nothing was spent." in str(caught.value)


def test_long_words_of_the_server_are_cut(server: FaultyServer, client: Client) -> None:
    server.inject("submit", answered(422, {"message": "word\n" * 5000}))
    with pytest.raises(RefusedError, match="word word") as caught:
        client.submit(MODEL, BODY)
    assert len(str(caught.value)) < 800
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["submit", "status"])
def test_a_token_that_the_server_repeats_is_not_passed_on(server: FaultyServer, client: Client, kind: str) -> None:
    server.inject(kind, answered(400, {"code": 400004, "message": f"Token {TOKEN} has expired", "detail": [TOKEN]}))
    with pytest.raises(AccountError, match="has expired") as caught:
        client.submit(MODEL, BODY) if kind == "submit" else client.status("abc")
    assert TOKEN not in str(caught.value)


def test_no_token_in_what_a_broken_connection_leaves_behind() -> None:
    with unreachable() as base_url:
        client = Client(base_url, TOKEN)
        for call in (lambda: client.submit(MODEL, BODY), lambda: client.status("abc")):
            with pytest.raises(NotNow) as caught:
                call()
            assert caught.value.retry_after is None
            assert "(ConnectionRefusedError)" in str(caught.value)
            assert TOKEN not in "".join(traceback.format_exception(caught.value))
        assert client.cancel("abc") is None
    assert TOKEN not in repr(client)


@pytest.mark.parametrize("fault", [DROPPED_BEFORE, DROPPED_AFTER, CUT], ids=repr)
def test_a_submission_that_breaks_off_is_doubt(server: FaultyServer, client: Client, fault: Fault) -> None:
    server.inject("submit", fault)
    with pytest.raises(UncertainError, match="connection broke"):
        client.submit(MODEL, BODY)
    assert len(server.behind.jobs) == fault.forwarded


def test_a_redirect_to_a_malformed_address_is_as_any_other(server: FaultyServer, client: Client) -> None:
    astray = Fault("astray", spoil=lambda answer, path: Answer(307, {"Location": "http://[oops"}))
    for kind in ("submit", "status", "cancel"):
        server.inject(kind, astray)
    with pytest.raises(UncertainError):
        client.submit(MODEL, BODY)
    with pytest.raises(NotNow):
        client.status("abc")
    assert client.cancel("abc") is None


@pytest.fixture
def through_proxy(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sends every call of this test through an HTTP proxy at a URL."""

    def set_proxy(url: str) -> None:
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, url)
        for name in ("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)

    return set_proxy


def test_a_proxy_that_breaks_off_leaves_doubt(server: FaultyServer, through_proxy: Callable[[str], None]) -> None:
    through_proxy(server.base_url)
    server.inject("other", DROPPED_BEFORE)
    with pytest.raises(UncertainError, match=r"\((RemoteDisconnected|Connection\w+Error)\)"):
        Client("http://api.example", TOKEN).submit(MODEL, BODY)
    (call,) = server.calls
    assert json.loads(call.body) == BODY


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_not_there_leaves_no_doubt(scheme: str, through_proxy: Callable[[str], None]) -> None:
    with unreachable() as url:
        through_proxy(url)
        with pytest.raises(NotNow):
            Client(f"{scheme}://api.example", TOKEN).submit(MODEL, BODY)


def test_loopback_is_reached_past_a_proxy(through_proxy: Callable[[str], None], tmp_path: Path) -> None:
    with unreachable() as url, RehearsalServer(token=TOKEN, render=render) as server:
        through_proxy(url)
        client = Client(server.base_url, TOKEN)
        request_id = client.submit(MODEL, BODY)
        server.wait_for(lambda: server.jobs[-1].finished_at)
        (clip,) = client.result(request_id).videos
        Download(tmp_path / "clip.mp4", allow_loopback=True, show=lambda received, total: None).fetch(clip)
    assert (tmp_path / "clip.mp4").read_bytes()[4:8] == b"ftyp"


def test_a_proxy_that_lets_nothing_through_leaves_no_doubt(
    server: FaultyServer, through_proxy: Callable[[str], None]
) -> None:
    through_proxy(server.base_url)  # which knows no CONNECT
    with pytest.raises(NotNow):
        Client("https://api.example", TOKEN).submit(MODEL, BODY)
    assert server.calls == []


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry_After": "7"}, 7.0),
        ({"Retry_After": " 120 "}, 120.0),
        ({"Retry_After": "0"}, 0.0),
        ({"Retry_After": formatdate(SERVER_CLOCK + 9, usegmt=True), "Date": formatdate(SERVER_CLOCK, usegmt=True)}, 9),
        ({"Retry_After": formatdate(0, usegmt=True), "Date": formatdate(9, usegmt=True)}, 0.0),
        ({"Retry_After": formatdate(0, usegmt=True)}, 0.0),
        ({"Retry_After": formatdate(60, usegmt=True), "Date": "yesterday"}, 0.0),
        ({"Retry_After": "soon"}, None),
        ({"Retry_After": "-5"}, None),
        ({"Retry_After": "9" * 400}, None),
        ({"Retry_After": "Sun, 99 Nov 1994 08:49:37 GMT"}, None),
        ({"Retry_After": "Sun, 06 Nov 9999999 08:49:37 GMT"}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("kind", ["submit", "status"])
def test_retry_after(
    server: FaultyServer, client: Client, kind: str, headers: dict[str, str], seconds: float | None
) -> None:
    server.inject(kind, answered(429, {"code": 429, "message": "slowly"}, **headers))
    with pytest.raises(NotNow) as caught:
        client.submit(MODEL, BODY) if kind == "submit" else client.status("abc")
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ({"status": "in_queue", "queue_position": 4}, Status(ended=False, working=False, queue_position=4)),
        ({"status": "in_queue", "queue_position": 0}, Status(ended=False, working=False, queue_position=0)),
        ({"status": "in_queue"}, Status(ended=False, working=False, queue_position=None)),
        ({"status": "in_queue", "queue_position": "4"}, Status(ended=False, working=False, queue_position=None)),
        ({"status": "in_queue", "queue_position": True}, Status(ended=False, working=False, queue_position=None)),
        ({"status": "in_progress"}, Status(ended=False, working=True, queue_position=None)),
        ({"status": "IN_PROGRESS"}, Status(ended=False, working=True, queue_position=None)),
        ({"status": "completed"}, Status(ended=True, working=False, queue_position=None)),
        ({"status": "cancelled"}, Status(ended=True, working=False, queue_position=None)),
        ({"status": "failed"}, Status(ended=True, working=False, queue_position=None)),
        ({"status": "a word of tomorrow"}, Status(ended=False, working=False, queue_position=None)),
    ],
)
def test_states(server: FaultyServer, client: Client, answer: dict[str, Any], status: Status) -> None:
    server.inject("status", answered(200, answer))
    assert client.status("abc") == status


A, B = "https://files.example/a.mp4", "https://files.example/b.mp4"


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        ({"status": "in_queue"}, Result("pending")),
        ({"status": "in_progress", "output": None}, Result("pending")),
        ({"status": "succeeded", "output": {"video": A}}, Result("succeeded", (A,))),
        ({"status": "completed", "output": {"video": A}}, Result("succeeded", (A,))),
        ({"status": "succeeded", "output": {"videos": [A, B]}}, Result("succeeded", (A, B))),
        ({"status": "succeeded", "output": {"video": A, "videos": [A, B]}}, Result("succeeded", (A, B))),
        ({"status": "succeeded", "output": {"videos": [{"url": A}, {"href": B}, 7, ""]}}, Result("succeeded", (A,))),
        ({"status": "succeeded", "output": {"video": None, "videos": None, "image": B}}, Result("succeeded")),
        ({"status": "succeeded", "output": [A]}, Result("succeeded")),
        ({"status": "succeeded"}, Result("succeeded")),
        ({"status": "succeeded", "cost": 1.5}, Result("succeeded", cost_usd=1.5)),
        ({"status": "succeeded", "cost": "0.25"}, Result("succeeded", cost_usd=0.25)),
        ({"status": "succeeded", "cost": 0}, Result("succeeded", cost_usd=0.0)),
        *(({"status": "succeeded", "cost": odd}, Result("succeeded")) for odd in (-1, True, "free", None, 1e999)),
        ({"status": "failed", "error": "too dark"}, Result("failed", error="too dark")),
        ({"status": "failed", "error": {"code": 5, "message": "too dark"}}, Result("failed", error="too dark")),
        ({"status": "failed", "error": ["too", "dark"]}, Result("failed", error='["too", "dark"]')),
        ({"status": "cancelled"}, Result("cancelled")),
        # No published word: it frees no entry, so it cannot be paid anew.
        ({"status": "error", "error": "bad gateway"}, Result("pending", error="bad gateway")),
    ],
)
def test_results(server: FaultyServer, client: Client, answer: dict[str, Any], result: Result) -> None:
    server.inject("result", answered(200, answer))
    assert client.result("abc") == result
    assert server.calls[0].path.endswith("/result?include_cost=true")


@pytest.mark.parametrize("kind", ["status", "result"])
@pytest.mark.parametrize("fault", [answered(200, {"request_id": "abc"}), answered(200, {"status": ""}), GZIP_LIE])
def test_an_answer_without_a_status_is_asked_for_again(
    server: FaultyServer, client: Client, kind: str, fault: Fault
) -> None:
    server.inject(kind, fault)
    with pytest.raises(NotNow):
        getattr(client, kind)("abc")


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (202, {"outcome": "cancelled"}, True),
        (202, {"outcome": "not_cancellable"}, False),
        (200, {"outcome": "cancelled"}, True),
        (202, {"status": "cancelled"}, None),
        (500, {"outcome": "cancelled"}, None),
        (404, {"code": 404001, "message": "unknown"}, None),
    ],
)
def test_only_a_confirmed_cancel_counts(
    server: FaultyServer, client: Client, status: int, body: Any, outcome: bool | None
) -> None:
    server.inject("cancel", answered(status, body))
    assert client.cancel("abc") is outcome


def test_a_cancel_gives_up_in_its_time(server: FaultyServer, client: Client) -> None:
    server.hold()
    request_id = client.submit(MODEL, BODY)
    server.inject("cancel", HANGS, SLOW)
    assert client.cancel(request_id, seconds=0.2) is None
    assert client.cancel(request_id, seconds=0.2) is None
    assert server.count("cancel") == 2
    assert server.behind.jobs[0].state == "cancelled"  # the answer came too late to know


@pytest.mark.parametrize(
    ("entry", "price"),
    [
        ({"base_price_usd": 0.2, "price_unit": "second"}, Price(0.2, "second", "")),
        ({"base_price_usd": "0.2", "price_unit": "output", "pricing_note": "more"}, Price(0.2, "output", "more")),
        ({"base_price_usd": 0.2}, Price(0.2, "", "")),
        ({"base_price_usd": 0}, None),
        ({"base_price_usd": None, "price_unit": "second"}, None),
        ({"model_id": MODEL}, None),
    ],
)
def test_prices(server: FaultyServer, client: Client, entry: dict[str, Any], price: Price | None) -> None:
    server.inject("catalogue", answered(200, entry))
    assert client.price(MODEL) == price


def test_one_client_serves_many_threads(server: FaultyServer, client: Client) -> None:
    request_id = client.submit(MODEL, BODY)
    states: list[Status] = []
    start = threading.Barrier(16)

    def ask() -> None:
        start.wait()
        states.append(client.status(request_id))

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert states == [Status(ended=True, working=False, queue_position=None)] * 16
