"""Result files over real HTTP: resumed after a cut, from public addresses only, and never with the token."""

from __future__ import annotations

import gzip
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import (
    CUT,
    CUT_UNNOTICED,
    DROPPED_AFTER,
    DROPPED_BEFORE,
    EMPTY,
    ERROR_500,
    FAULTS,
    PAGE,
    REDIRECT,
    SLOW,
    Answer,
    Fault,
    FaultyServer,
    answered,
    error,
)
from runcomfy_kling.nodes.errors import DownloadError
from runcomfy_kling.nodes.rehearsal.server import RehearsalServer
from runcomfy_kling.nodes.runcomfy.client import NotNow
from runcomfy_kling.nodes.runcomfy.download import BLOCK, Download

CONTENT = bytes(range(256)) * 16 * 1024  # 4 MiB, and no two neighbours alike
MP4 = "video/mp4"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FaultyServer]:
    with RehearsalServer() as behind, FaultyServer(behind) as proxy:
        behind.files["clip.mp4"] = tmp_path / "there.mp4"
        behind.files["clip.mp4"].write_bytes(CONTENT)
        yield proxy


class Receiver:
    """A download to a file, and what it showed on the way."""

    def __init__(self, server: FaultyServer, folder: Path, *, allow_loopback: bool = True, **limits: int) -> None:
        self.url = f"{server.base_url}/files/clip.mp4"
        self.shown: list[tuple[int, int | None]] = []
        self.stop_at = 0
        self.download = Download(folder / "here.mp4", allow_loopback=allow_loopback, show=self.show, **limits)

    def show(self, received: int, total: int | None) -> None:
        self.shown.append((received, total))
        if received == self.stop_at:
            self.download.stop.set()

    def fetch(self, url: str = "") -> None:
        self.download.fetch(url or self.url)

    @property
    def content(self) -> bytes:
        return self.download.path.read_bytes()


@pytest.fixture
def receiver(server: FaultyServer, tmp_path: Path) -> Receiver:
    return Receiver(server, tmp_path)


def ranges(server: FaultyServer) -> list[str | None]:
    return [call.headers.get("range") for call in server.calls]


def test_a_file_arrives_whole_and_is_shown_growing(server: FaultyServer, receiver: Receiver) -> None:
    receiver.fetch()
    assert receiver.content == CONTENT
    assert receiver.shown == [(n * BLOCK, len(CONTENT)) for n in (1, 2, 3, 4)]
    (call,) = server.calls
    assert not call.authorized
    assert "range" not in call.headers
    assert call.headers["accept-encoding"] == "identity"


def test_a_cut_file_goes_on_where_it_stopped(server: FaultyServer, receiver: Receiver) -> None:
    half = len(CONTENT) // 2
    server.inject("download", CUT, CUT)
    for _ in range(2):
        with pytest.raises(NotNow):
            receiver.fetch()
    assert receiver.content == CONTENT[: half + half // 2]
    receiver.fetch()
    assert receiver.content == CONTENT
    assert ranges(server) == [None, f"bytes={half}-", f"bytes={half + half // 2}-"]
    assert {call.headers.get("if-range") for call in server.calls} == {None, '"clip.mp4"'}
    assert receiver.shown[-1] == (len(CONTENT), len(CONTENT))


@pytest.mark.parametrize("fault", [DROPPED_BEFORE, DROPPED_AFTER], ids=repr)
def test_a_drop_keeps_what_has_arrived(server: FaultyServer, receiver: Receiver, fault: Fault) -> None:
    server.inject("download", CUT, fault)
    for _ in range(2):
        with pytest.raises(NotNow):
            receiver.fetch()
    receiver.fetch()
    assert receiver.content == CONTENT
    assert ranges(server)[2] == f"bytes={len(CONTENT) // 2}-"


def test_a_file_that_changed_meanwhile_is_fetched_anew(server: FaultyServer, receiver: Receiver) -> None:
    other = b"another clip" * 1000
    server.inject("download", CUT, answered(200, other, MP4, ETag='"other"'))
    with pytest.raises(NotNow):
        receiver.fetch()
    receiver.fetch()
    assert receiver.content == other


@pytest.mark.parametrize("tag", [{}, {"ETag": 'W/"clip.mp4"'}])
def test_without_a_strong_validator_it_starts_over(
    server: FaultyServer, receiver: Receiver, tag: dict[str, str]
) -> None:
    server.inject("download", Fault("cut", spoil=answered(200, CONTENT, MP4, **tag).spoil, sent=0.5))
    with pytest.raises(NotNow):
        receiver.fetch()
    receiver.fetch()
    assert receiver.content == CONTENT
    assert ranges(server) == [None, None]


@pytest.mark.parametrize(
    "fault",
    [
        answered(206, CONTENT[10:], MP4, ETag='"clip.mp4"', Content_Range=f"bytes 10-{len(CONTENT) - 1}/*"),
        answered(206, CONTENT[10:], MP4, ETag='"clip.mp4"'),
        error(416),
    ],
    ids=["another part", "an unknown part", "no such part"],
)
def test_a_wrong_part_is_not_joined(server: FaultyServer, receiver: Receiver, fault: Fault) -> None:
    server.inject("download", CUT, fault)
    for _ in range(2):
        with pytest.raises(NotNow):
            receiver.fetch()
    receiver.fetch()
    assert receiver.content == CONTENT
    assert ranges(server)[2] is None


def test_starting_over_asks_for_all_of_it(server: FaultyServer, receiver: Receiver) -> None:
    receiver.fetch()
    receiver.download.start_over()
    receiver.fetch()
    assert receiver.content == CONTENT
    assert ranges(server) == [None, None]


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in (EMPTY, CUT_UNNOTICED)], ids=repr)
def test_every_fault_is_survived(server: FaultyServer, receiver: Receiver, fault: Fault) -> None:
    """Nothing, or half without a length, passes for a file here: whoever probes it knows better."""
    server.inject("download", fault)
    if fault not in (SLOW, REDIRECT):
        with pytest.raises(NotNow):
            receiver.fetch()
    receiver.fetch()
    assert receiver.content == CONTENT
    assert not any(call.authorized for call in server.calls)


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "TEXT/plain", "application/json", "application/xml"])
def test_a_page_in_place_of_the_clip_is_not_saved(server: FaultyServer, receiver: Receiver, kind: str) -> None:
    server.inject("download", answered(200, PAGE, kind))
    with pytest.raises(NotNow, match="HTTP 200 with a page in its place"):
        receiver.fetch()
    assert not receiver.download.path.exists()


@pytest.mark.parametrize("kind", [MP4, "application/octet-stream", "binary/octet-stream", "application/mp4"])
def test_a_clip_goes_by_several_types(server: FaultyServer, receiver: Receiver, kind: str) -> None:
    server.inject("download", answered(200, CONTENT, kind))
    receiver.fetch()
    assert receiver.content == CONTENT


def test_a_busy_storage_says_when(server: FaultyServer, receiver: Receiver) -> None:
    server.inject("download", error(503, Retry_After="4"), ERROR_500)
    for seconds in (4.0, None):
        with pytest.raises(NotNow) as caught:
            receiver.fetch()
        assert caught.value.retry_after == seconds


def test_a_file_over_the_ceiling_is_refused_before_it_is_read(server: FaultyServer, tmp_path: Path) -> None:
    receiver = Receiver(server, tmp_path, max_bytes=len(CONTENT) - 1)
    with pytest.raises(DownloadError, match=f"{len(CONTENT)} bytes: more than {len(CONTENT) - 1}"):
        receiver.fetch()
    assert not receiver.download.path.exists()
    Receiver(server, tmp_path, max_bytes=len(CONTENT)).fetch()
    assert receiver.content == CONTENT


def test_a_file_that_hides_its_size_stops_at_the_ceiling(server: FaultyServer, tmp_path: Path) -> None:
    receiver = Receiver(server, tmp_path, max_bytes=2 * BLOCK + 1)
    server.inject("download", Fault("no length", forwarded=True, announced=False))
    with pytest.raises(DownloadError, match="larger than"):
        receiver.fetch()
    assert len(receiver.content) == 2 * BLOCK


def test_a_resumed_file_counts_as_a_whole_against_the_ceiling(server: FaultyServer, tmp_path: Path) -> None:
    receiver = Receiver(server, tmp_path, max_bytes=len(CONTENT) - 1)
    server.inject("download", CUT_UNNOTICED)
    receiver.fetch()
    with pytest.raises(DownloadError, match=f"{len(CONTENT)} bytes"):
        receiver.fetch()
    assert ranges(server) == [None, f"bytes={len(CONTENT) // 2}-"]


def test_stop_ends_it_between_two_blocks(receiver: Receiver) -> None:
    receiver.stop_at = 2 * BLOCK
    receiver.fetch()
    assert receiver.content == CONTENT[: 2 * BLOCK]


PRIVATE = (
    "https://127.0.0.1",
    "https://127.8.9.1",
    "https://[::1]",
    "https://[::ffff:127.0.0.1]",
    "https://10.1.2.3",
    "https://172.16.0.1",
    "https://192.168.1.1",
    "https://100.64.0.1",
    "https://169.254.169.254",
    "https://0.0.0.0",
    "https://[::]",
    "https://[::ffff:10.1.2.3]",
    "https://[::ffff:169.254.169.254]",
    "https://[fe80::1]",
    "https://[fd00::1]",
)
NOT_HTTPS = ("http://files.example", "ftp://files.example", "file:///etc", "//files.example", "data:video/mp4,x", "")
MALFORMED = ("https://[oops", "https://", "https:///nowhere", "https://[::1%25eth0")


@pytest.mark.parametrize("origin", PRIVATE + NOT_HTTPS + MALFORMED)
def test_addresses_that_are_not_fetched(server: FaultyServer, tmp_path: Path, origin: str) -> None:
    receiver = Receiver(server, tmp_path, allow_loopback=False)
    with pytest.raises(DownloadError, match="so it was not fetched"):
        receiver.download.fetch(origin and f"{origin}/clip.mp4")


def test_loopback_is_for_an_api_on_loopback_only(server: FaultyServer, tmp_path: Path) -> None:
    receiver = Receiver(server, tmp_path, allow_loopback=False)
    for url in (receiver.url, receiver.url.replace("127.0.0.1", "localhost")):
        with pytest.raises(DownloadError, match="not fetched"):
            receiver.fetch(url)
    assert server.calls == []


@pytest.mark.parametrize("origin", [*PRIVATE[4:], *NOT_HTTPS])
def test_an_api_on_loopback_opens_loopback_alone(receiver: Receiver, origin: str) -> None:
    with pytest.raises(DownloadError, match="not fetched"):
        receiver.download.fetch(origin and f"{origin}/clip.mp4")


class Listener:
    """Takes connections on loopback and keeps what arrives before the other side closes."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.received = b""
        self._thread = threading.Thread(target=self._take, daemon=True)
        self._thread.start()

    def _take(self) -> None:
        connection, _ = self._socket.accept()
        with connection:
            connection.settimeout(30)
            while part := connection.recv(4096):
                self.received += part

    def all_received(self) -> bytes:
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.received

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


# The last two are numbers to the resolver and names to everybody else.
@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "2130706433", "127.1"])
def test_a_name_that_leads_to_a_private_address_is_left_before_a_word_is_said(
    server: FaultyServer, tmp_path: Path, listener: Listener, name: str
) -> None:
    receiver = Receiver(server, tmp_path, allow_loopback=False)
    with pytest.raises(DownloadError, match="private address"):
        receiver.fetch(f"https://{name}:{listener.port}/clip.mp4")
    assert listener.all_received() == b""


def leads_to(location: str, status: int = 302) -> Fault:
    return Fault(f"to {location}", spoil=lambda answer, path: Answer(status, {"Location": location}))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed_without_the_token(server: FaultyServer, receiver: Receiver, status: int) -> None:
    server.inject("download", leads_to("clip.mp4", status))
    receiver.fetch()
    assert receiver.content == CONTENT
    assert [call.path for call in server.calls] == ["/files/clip.mp4"] * 2
    assert not any(call.authorized for call in server.calls)


@pytest.mark.parametrize("origin", [*PRIVATE[4:], "http://files.example", "http://10.1.2.3", "ftp://x", "http://[oops"])
def test_a_redirect_leads_nowhere_else(server: FaultyServer, receiver: Receiver, origin: str) -> None:
    server.inject("download", leads_to(f"{origin}/clip.mp4"))
    with pytest.raises(DownloadError, match="not fetched"):
        receiver.fetch()
    assert server.count("download") == 1


def test_a_circle_of_redirects_ends(server: FaultyServer, receiver: Receiver) -> None:
    server.inject("download", *[leads_to("clip.mp4")] * 100)
    with pytest.raises(DownloadError, match="more than 5 times"):
        receiver.fetch()
    assert server.count("download") == 6


def test_a_redirect_to_nowhere_is_tried_again(server: FaultyServer, receiver: Receiver) -> None:
    server.inject("download", Fault("no location", spoil=lambda answer, path: Answer(302)))
    with pytest.raises(NotNow):
        receiver.fetch()
    receiver.fetch()
    assert receiver.content == CONTENT


def test_a_netrc_entry_is_never_sent(
    server: FaultyServer, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("netrc", ".netrc", "_netrc"):
        (tmp_path / name).write_text("default login someone password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    server.inject("download", leads_to(receiver.url.replace("127.0.0.1", "localhost")))
    receiver.fetch()
    assert receiver.content == CONTENT
    assert not any(call.authorized for call in server.calls)


def test_an_encoding_that_was_not_asked_for_is_tried_again(server: FaultyServer, receiver: Receiver) -> None:
    server.inject("download", answered(200, gzip.compress(CONTENT), MP4, Content_Encoding="gzip"))
    with pytest.raises(NotNow):
        receiver.fetch()
    receiver.fetch()
    assert receiver.content == CONTENT
