"""Every call of the corridor meets every fault: what was accepted, what was said, and whether the clip is whole.

All cells are played at once, since each mostly waits between two polls; each test then asks about its own.
"""

from __future__ import annotations

import queue
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import faults
import pytest
from corridor import TOKEN, live_account, plain_workspace, render, run, text_request
from faults import DROPPED_AFTER, ELSEWHERE, FAULTS, PAGE_502, SLOW, WAIT_DATE, WAIT_SECONDS, Fault, FaultyServer
from runcomfy_kling.nodes.corridor import Delivery
from runcomfy_kling.nodes.errors import (
    AccountError,
    BudgetError,
    CancelledRequestError,
    DownloadError,
    FailedError,
    KlingError,
    NoOutputError,
    RefusedError,
    UnavailableError,
    UncertainError,
)
from runcomfy_kling.nodes.identity import fingerprint
from runcomfy_kling.nodes.ledger import Entry
from runcomfy_kling.nodes.media import video
from runcomfy_kling.nodes.rehearsal.server import RehearsalServer
from runcomfy_kling.nodes.runcomfy.client import GENERATIONS_URL
from runcomfy_kling.nodes.threads import start
from runcomfy_kling.nodes.workspace import Stopped

pytestmark = pytest.mark.xdist_group("fault matrix")

AT_ONCE = 16
PRICE = 0.125
# A 429 of RunComfy is waited out and a slow answer is read to its end: neither leaves a doubt.
NO_DOUBT = (WAIT_SECONDS, WAIT_DATE, SLOW)
BUYS_AGAIN = "Running the node again submits it anew."


class Scene:
    """One account at one faulty server, and one request that is asked for again and again."""

    def __init__(self, name: str, folder: Path, server: FaultyServer) -> None:
        self.folder = folder
        self.server = server
        self.account = live_account(server.base_url, folder)
        self.request = text_request(name)
        self.shown: list[dict[str, Any]] = []
        self.errors: list[KlingError] = []

    @property
    def accepted(self) -> list[str]:
        return [job.request_id for job in self.server.behind.jobs]

    def entry(self, variation: int = 0) -> Entry | None:
        return self.account.ledger.newest(fingerprint(self.request, variation))

    def run(self, **options: Any) -> Delivery:
        return run(self.request, self.account, plain_workspace(self.folder, self.shown.append), **options)

    def delivers(self, request_id: str, *, reused: bool = False, clips: int = 1, **options: Any) -> Delivery:
        """Run, and look at the clip on disk and at the record of it."""
        delivery = self.run(**options)
        entry = self.account.ledger.find_request(request_id)
        assert (delivery.request_id, delivery.reused, len(delivery.files)) == (request_id, reused, clips)
        assert entry is not None
        assert (entry.state, entry.files, entry.cost_usd) == ("saved", delivery.files, 3 * PRICE)
        for file in delivery.files:
            assert file.is_intact()
            info = video.probe(file.path)
            assert (info.width, info.height, info.frames) == (320, 180, 12)
        return delivery

    def refuses(self, kind: type[KlingError], *words: str, **options: Any) -> str:
        """Run, and read the message of the error that ends it."""
        with pytest.raises(KlingError) as caught:
            self.run(**options)
        assert caught.type is kind, caught.value
        message = str(caught.value)
        for word in words:
            assert word in message
        self.errors.append(caught.value)
        assert self.shown[-1]["stage"] == "failed"
        assert self.shown[-1]["message"] == message
        return message

    def check_secrecy(self) -> None:
        """The token goes to the API alone: with no download, and nowhere that a redirect points."""
        assert TOKEN not in repr(self.shown)
        for call in self.server.calls:
            assert call.authorized == (call.kind != "download" and not call.path.startswith(ELSEWHERE)), call
        elsewhere = [call for call in self.server.calls if call.path.startswith(ELSEWHERE)]
        assert all("/files/" in call.path for call in elsewhere)


def submit_meets(fault: Fault) -> Callable[[Scene], None]:
    def play(scene: Scene) -> None:
        scene.server.inject("submit", fault)
        if fault in NO_DOUBT:
            delivery = scene.run()
            assert scene.accepted == [delivery.request_id]
            scene.delivers(delivery.request_id, reused=True)
            assert scene.server.count("submit") == (1 if fault is SLOW else 2)
            return
        message = scene.refuses(
            UncertainError, "may have accepted", "charged", GENERATIONS_URL, "request_id", "variation"
        )
        accepted = scene.accepted
        assert len(accepted) == fault.forwarded
        assert scene.refuses(UncertainError) == message
        assert scene.server.count("submit") == 1
        take = scene.run(variation=1)
        assert scene.accepted == [*accepted, take.request_id]
        # Where the answer was lost, the id is found in RunComfy's list; any other id of the account serves as well.
        bought = accepted[0] if accepted else scene.server.behind.accept(TOKEN, *_bought_elsewhere(scene)).request_id
        scene.delivers(bought, adopt=bought)
        scene.delivers(bought, reused=True)
        assert scene.server.count("submit") == 2

    return play


def _bought_elsewhere(scene: Scene) -> tuple[str, dict[str, Any]]:
    return scene.request.endpoint.model_id, scene.request.body


def call_meets(kind: str, fault: Fault) -> Callable[[Scene], None]:
    """A call that costs nothing is asked again until it is answered."""

    def play(scene: Scene) -> None:
        scene.server.inject(kind, fault)
        delivery = scene.run()
        assert scene.accepted == [delivery.request_id]
        assert scene.server.count("submit") == 1
        followed = any(call.path.startswith(ELSEWHERE) for call in scene.server.calls)
        assert followed == (kind == "download" and fault is faults.REDIRECT)
        assert scene.server.count(kind) >= (1 if fault is SLOW or followed else 2)
        scene.delivers(delivery.request_id, reused=True)

    return play


def cancel_meets(fault: Fault) -> Callable[[Scene], None]:
    def play(scene: Scene) -> None:
        scene.server.hold()
        scene.server.inject("cancel", fault)
        told = stop(scene, "queued")
        (bought,) = scene.accepted
        assert bought in told
        assert scene.server.count("cancel") == 1
        assert scene.shown[-1]["outcome"] == ("cancelled" if fault is SLOW else "unconfirmed")
        if fault is SLOW:
            assert told.endswith(f"was cancelled. {BUYS_AGAIN}")
            assert scene.entry().state == "cancelled"
        else:
            assert told.endswith(
                "may run on, since RunComfy did not confirm the cancel. Running the node again takes it up."
            )
            assert scene.entry().state == "submitted"
        scene.server.release()
        if not fault.forwarded:
            scene.delivers(bought)
            assert scene.accepted == [bought]
            return
        if fault is not SLOW:
            scene.refuses(CancelledRequestError, bought, "was cancelled", BUYS_AGAIN)
        scene.run()
        assert len(scene.accepted) == 2

    return play


def stop(scene: Scene, stage: str) -> str:
    """Press Stop when the node shows a stage; return what it says of the request in the end."""
    pressed, told = threading.Event(), queue.Queue()

    def show(facts: dict[str, Any]) -> None:
        scene.shown.append(facts)
        if facts["stage"] == stage:
            pressed.set()
        if facts["stage"] == "stopped" and facts["message"]:
            told.put(facts["message"])

    with pytest.raises(Stopped):
        run(scene.request, scene.account, plain_workspace(scene.folder, show, pressed.is_set))
    return told.get(timeout=30)


def too_late_to_cancel(scene: Scene) -> None:
    scene.server.hold_work()
    told = stop(scene, "generating")
    (bought,) = scene.accepted
    assert scene.shown[-1]["outcome"] == "runs_on"
    assert told == f"Request {bought} can no longer be cancelled and runs on. Running the node again takes it up."
    assert scene.entry().state == "submitted"
    scene.server.release()
    scene.delivers(bought)
    assert (scene.accepted, scene.server.count("cancel")) == ([bought], 1)


def catalogue_meets(fault: Fault) -> Callable[[Scene], None]:
    """With a budget, a price that cannot be read stops the submission, and only that one."""

    def play(scene: Scene) -> None:
        scene.account = live_account(scene.server.base_url, scene.folder, budget_usd=1000.0)
        scene.server.inject("catalogue", fault)
        if fault is not SLOW:
            scene.refuses(BudgetError, "price", "not known", "nothing was submitted")
            assert scene.server.count("submit") == 0
        if fault is faults.OTHER_FIELDS:
            return  # an entry without a price is an answer, and kept for minutes
        scene.run()
        assert len(scene.accepted) == 1

    return play


def refused(status: int, code: int | None, kind: type[KlingError], words: str) -> Callable[[Scene], None]:
    """A clear refusal is no doubt: it is reported in RunComfy's words and ours, and a later run submits."""

    def play(scene: Scene) -> None:
        scene.server.inject("submit", faults.error(status, code))
        scene.refuses(kind, "in other words", str(code or 1000 * status + 1), "Nothing was spent", words)
        assert (scene.entry(), scene.server.count("submit")) == (None, 1)
        scene.run()
        assert len(scene.accepted) == 1

    return play


def doubtful(fault: Fault) -> Callable[[Scene], None]:
    """A status that would be a refusal, without RunComfy's JSON; or one that never is."""

    def play(scene: Scene) -> None:
        scene.server.inject("submit", fault)
        scene.refuses(UncertainError, "may have accepted")
        scene.refuses(UncertainError, "may have accepted")
        assert (scene.accepted, scene.server.count("submit")) == ([], 1)

    return play


def hidden(kind: str, status: int, code: int, error: type[KlingError], words: str) -> Callable[[Scene], None]:
    """RunComfy says that this account cannot see the request: it is told, kept, and not bought again."""

    def play(scene: Scene) -> None:
        scene.server.inject(kind, faults.error(status, code))
        message = scene.refuses(error, "in other words", str(code), words)
        (bought,) = scene.accepted
        assert bought in message
        assert scene.entry().state == "submitted"
        scene.delivers(bought)
        assert scene.accepted == [bought]

    return play


def never_reached(scene: Scene) -> None:
    there = scene.account
    with faults.unreachable() as base_url:
        scene.account = live_account(base_url, scene.folder)
        scene.refuses(RefusedError, "could not be reached", "Nothing was submitted", "nothing was spent", "run again")
    assert scene.entry() is None
    scene.account = there
    scene.run()
    assert len(scene.accepted) == 1


def failed(scene: Scene) -> None:
    scene.server.behind.outcome = "failed"
    message = scene.refuses(FailedError, "the rehearsal was asked to fail", "It cost nothing.", BUYS_AGAIN)
    assert scene.accepted[0] in message
    assert scene.entry().state == "failed"
    scene.server.behind.outcome = "succeeded"
    scene.run()
    assert len(scene.accepted) == 2


def cancelled(scene: Scene) -> None:
    scene.server.behind.outcome = "cancelled"
    message = scene.refuses(CancelledRequestError, "was cancelled", BUYS_AGAIN)
    assert scene.accepted[0] in message
    assert scene.entry().state == "cancelled"
    scene.server.behind.outcome = "succeeded"
    scene.run()
    assert len(scene.accepted) == 2


def without_output(scene: Scene) -> None:
    scene.server.behind.outcome = "no_output"
    for times_read in (1, 2):
        message = scene.refuses(NoOutputError, "names no video", "paid and kept", "run the node again", GENERATIONS_URL)
        assert scene.accepted[0] in message
        assert (len(scene.accepted), scene.server.count("result")) == (1, times_read)
    assert scene.entry().state == "submitted"


def two_videos(scene: Scene) -> None:
    scene.server.behind.outcome = "two_videos"
    scene.server.inject("download", DROPPED_AFTER, PAGE_502)
    delivery = scene.run()
    first, second = (file.path for file in delivery.files)
    assert first != second
    scene.delivers(delivery.request_id, reused=True, clips=2)
    second.unlink()
    scene.delivers(delivery.request_id, clips=2)
    assert len(scene.accepted) == 1


def moved(scene: Scene) -> None:
    """A link that answers no more is asked for again: it may have been signed for minutes only."""
    link = f"{scene.server.base_url}/files/gone.mp4"
    gone = {"status": "succeeded", "output": {"video": link}, "cost": 3 * PRICE}
    scene.server.inject("result", faults.answered(200, gone))
    delivery = scene.run()
    assert (scene.server.count("result"), scene.server.count("download")) == (2, 2)
    scene.delivers(delivery.request_id, reused=True)


def never_downloaded(scene: Scene) -> None:
    """The clip stays paid and known when its storage answers nothing for long, and the next run fetches it."""
    scene.server.inject("download", *[WAIT_SECONDS] * 6)
    message = scene.refuses(DownloadError, "finished and paid", "HTTP 429", "run the node again", "submitted anew")
    (bought,) = scene.accepted
    assert bought in message
    scene.delivers(bought)
    assert (scene.accepted, scene.server.count("submit")) == ([bought], 1)


def _cells() -> dict[str, Callable[[Scene], None]]:
    cells: dict[str, Callable[[Scene], None]] = {"never reached": never_reached, "never downloaded": never_downloaded}
    for fault in FAULTS:
        cells[f"submit: {fault}"] = submit_meets(fault)
        cells |= {f"{kind}: {fault}": call_meets(kind, fault) for kind in ("status", "result", "download")}
        cells[f"cancel: {fault}"] = cancel_meets(fault)
        cells[f"catalogue: {fault}"] = catalogue_meets(fault)
    cells["download: moved"] = moved
    cells["cancel: hangs"] = cancel_meets(faults.HANGS)
    cells["cancel: too late"] = too_late_to_cancel
    for status, code, kind, words in (
        (400, 400001, RefusedError, "refused the request"),
        (400, 400002, RefusedError, "balance is used up"),
        (400, 400004, AccountError, "does not accept the token"),
        (401, None, AccountError, "RUNCOMFY_API_TOKEN"),
        (402, None, RefusedError, "Top up"),
        (403, 403001, RefusedError, "refused the request"),
        (404, None, RefusedError, "refused the request"),
        (413, None, RefusedError, "refused the request"),
        (422, None, RefusedError, "refused a field"),
    ):
        cells[f"submit: refused {code or status}"] = refused(status, code, kind, words)
    for status in (400, 401, 402, 403, 404, 413, 422, 429, 503):
        cells[f"submit: page {status}"] = doubtful(faults.page(status))
    for status in (408, 409, 502, 503, 504):
        cells[f"submit: error {status}"] = doubtful(faults.error(status))
    for kind in ("status", "result"):
        cells |= {
            f"{kind}: bad token": hidden(kind, 400, 400004, AccountError, "The clip is not lost"),
            f"{kind}: foreign": hidden(kind, 403, 403001, UnavailableError, "another account"),
            f"{kind}: unknown": hidden(kind, 404, 404001, UnavailableError, "does not know this request"),
        }
        for status in (401, 403, 404):
            cells[f"{kind}: page {status}"] = call_meets(kind, faults.page(status))
    for status in (403, 404, 410, 416):
        cells[f"download: page {status}"] = call_meets("download", faults.page(status))
    endings = {"failed": failed, "cancelled": cancelled, "without output": without_output, "two videos": two_videos}
    return cells | {f"ending: {name}": play for name, play in endings.items()}


CELLS = _cells()


def _played(name: str, folder: Path, gate: threading.Semaphore) -> list[KlingError]:
    with gate, RehearsalServer(render=render, base_price_usd=PRICE) as behind, FaultyServer(behind) as server:
        scene = Scene(name, folder, server)
        CELLS[name](scene)
        scene.check_secrecy()
        return scene.errors


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Future[list[KlingError]]]:
    gate = threading.Semaphore(AT_ONCE)
    # Daemon threads: a cell that never ends fails, and holds nothing else up.
    return {name: start(_played, name, tmp_path_factory.mktemp("cell"), gate) for name in CELLS}


@pytest.mark.parametrize("name", CELLS)
def test_cell(played: dict[str, Future[list[KlingError]]], name: str) -> None:
    # Tracebacks are written here, in one thread: Python 3.11 cannot do so in several at once.
    for error in played[name].result(timeout=60):
        assert TOKEN not in "".join(traceback.format_exception(error))
