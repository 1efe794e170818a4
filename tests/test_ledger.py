"""The record of what was paid: its states, what it holds, and what happens when it is damaged or cannot be written."""

from __future__ import annotations

import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from corridor import TOKEN, image_request, live_account, plain_workspace, render, run, text_request
from faults import FaultyServer
from runcomfy_kling.nodes.account import rehearsal
from runcomfy_kling.nodes.errors import LedgerError
from runcomfy_kling.nodes.identity import fingerprint
from runcomfy_kling.nodes.ledger import FILE, LIVE, Entry, Ledger, SavedFile, is_shared
from runcomfy_kling.nodes.rehearsal.server import RehearsalServer
from runcomfy_kling.nodes.settings import Settings
from runcomfy_kling.nodes.threads import start

FACTS: dict[str, Any] = {"model_id": "kling/kling-3.0/pro/text-to-video", "seconds": 5, "audio": True}
ONE, OTHER = "1" * 64, "2" * 64
PAGE = 4096


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


def opened(ledger: Ledger, name: str = ONE) -> Entry:
    return ledger.open_submission(name, token=TOKEN, **FACTS)


def submitted(ledger: Ledger, request_id: str = "r-1", name: str = ONE) -> Entry:
    return ledger.submitted(opened(ledger, name).id, request_id)


def a_file(folder: Path, content: bytes = b"a clip") -> SavedFile:
    folder.mkdir(exist_ok=True)
    path = folder / f"{len(list(folder.iterdir()))}.mp4"
    path.write_bytes(content)
    return SavedFile.of(path)


def saved(ledger: Ledger, request_id: str = "r-1", name: str = ONE, **facts: Any) -> Entry:
    entry = submitted(ledger, request_id, name)
    ledger.saved(entry.id, [a_file(ledger.folder.parent / "clips")], **facts)
    return found(ledger.get(entry.id))


def found(entry: Entry | None) -> Entry:
    assert entry is not None
    return entry


REACH: dict[str, Callable[[Ledger], Entry]] = {
    "submitting": opened,
    "submitted": submitted,
    "saved": saved,
    "uncertain": lambda ledger: _ended(ledger, opened(ledger), lambda entry: ledger.uncertain(entry.id, "cut off")),
    "failed": lambda ledger: _ended(ledger, submitted(ledger), lambda entry: ledger.failed(entry.id, "no", 0.5)),
    "cancelled": lambda ledger: _ended(ledger, submitted(ledger), lambda entry: ledger.cancelled(entry.id)),
}


def _ended(ledger: Ledger, entry: Entry, end: Callable[[Entry], None]) -> Entry:
    end(entry)
    return found(ledger.get(entry.id))


@pytest.mark.parametrize("state", REACH)
def test_a_state_is_read_back_by_another_ledger(ledger: Ledger, state: str) -> None:
    entry = REACH[state](ledger)
    again = Ledger(ledger.folder)
    assert entry.state == state
    assert again.get(entry.id) == again.newest(ONE) == entry
    assert again.find(ONE) == (entry if state in LIVE else None)
    assert entry.request_id is None or again.find_request(entry.request_id) == entry
    assert again.find(OTHER) is None


def test_what_is_noted_stays(ledger: Ledger) -> None:
    entry = saved(ledger, cost_usd=0.7, worked=61.5, prompt="A train.")
    assert (entry.cost_usd, entry.worked, entry.prompt) == (0.7, 61.5, "A train.")
    assert (entry.model_id, entry.seconds, entry.audio) == tuple(FACTS.values())
    elsewhere = a_file(ledger.folder.parent / "elsewhere")
    ledger.saved(entry.id, [elsewhere])
    again = found(ledger.get(entry.id))
    assert again.files == (elsewhere,)
    assert (again.cost_usd, again.worked, again.prompt) == (0.7, 61.5, "A train.")


@pytest.mark.parametrize("state", LIVE)
def test_a_generation_has_one_live_entry(ledger: Ledger, state: str) -> None:
    entry = REACH[state](ledger)
    with pytest.raises(LedgerError, match="paid twice"):
        opened(ledger)
    assert ledger.count() == 1 and ledger.find(ONE) == entry


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_what_ended_without_a_clip_can_be_submitted_anew(ledger: Ledger, state: str) -> None:
    first = REACH[state](ledger)
    second = opened(ledger)
    assert second.id > first.id and ledger.newest(ONE) == second


def test_a_refused_submission_leaves_nothing(ledger: Ledger) -> None:
    ledger.forget(opened(ledger).id)
    assert ledger.count() == 0
    kept = submitted(ledger)
    ledger.forget(kept.id)
    assert ledger.find(ONE) == kept


def test_only_an_uncertain_submission_can_be_settled(ledger: Ledger) -> None:
    entry = REACH["uncertain"](ledger)
    ledger.settle(entry.id)
    assert ledger.find(ONE) is None
    kept = submitted(ledger)
    ledger.settle(kept.id)
    assert ledger.find(ONE) == kept


@pytest.mark.parametrize("state", ["submitting", "uncertain"])
def test_an_adopted_request_is_the_lost_submission(ledger: Ledger, state: str) -> None:
    lost = REACH[state](ledger)
    adopted = ledger.adopt(ONE, "r-2", token=TOKEN, **FACTS)
    assert (adopted.state, adopted.request_id, adopted.submitted) == ("submitted", "r-2", lost.created)
    assert ledger.find(ONE) == adopted and ledger.count() == 1


@pytest.mark.parametrize("state", ["submitted", "saved"])
def test_an_adopted_request_takes_the_place_of_another_clip_which_stays_on_record(ledger: Ledger, state: str) -> None:
    before = REACH[state](ledger)
    adopted = ledger.adopt(ONE, "r-2", token=TOKEN, **FACTS)
    kept = found(ledger.find_request("r-1"))
    assert ledger.find(ONE) == adopted and adopted.request_id == "r-2"
    assert (kept.state, kept.fingerprint, kept.files) == (state, None, before.files)


@pytest.mark.parametrize("state", ["failed", "cancelled", None])
def test_a_request_is_adopted_where_nothing_is_live(ledger: Ledger, state: str | None) -> None:
    if state:
        REACH[state](ledger)
    assert ledger.adopt(ONE, "r-2", token=TOKEN, **FACTS).state == "submitted"
    assert found(ledger.find(ONE)).request_id == "r-2"


@pytest.mark.parametrize("state", REACH)
def test_adopting_again_what_these_inputs_have_changes_nothing(ledger: Ledger, state: str) -> None:
    entry = REACH[state](ledger)
    if entry.request_id:
        assert ledger.adopt(ONE, entry.request_id, token=TOKEN, **FACTS) == entry == ledger.get(entry.id)


def test_a_request_that_failed_is_not_taken_for_the_lost_submission(ledger: Ledger) -> None:
    failed = REACH["failed"](ledger)
    lost = REACH["uncertain"](ledger)
    assert ledger.adopt(ONE, found(ledger.get(failed.id)).request_id or "", token=TOKEN, **FACTS) == failed
    assert ledger.find(ONE) == lost


def test_a_request_of_other_inputs_is_not_adopted(ledger: Ledger) -> None:
    theirs = saved(ledger, "r-1", OTHER)
    with pytest.raises(LedgerError, match=r"r-1 .*Kling Fetch Video"):
        ledger.adopt(ONE, "r-1", token=TOKEN, **FACTS)
    assert ledger.find(OTHER) == theirs and ledger.find(ONE) is None


@pytest.mark.parametrize("state", ["uncertain", "submitted", "failed"])
def test_a_fetched_clip_is_adopted_with_its_file(ledger: Ledger, state: str) -> None:
    before = REACH[state](ledger)
    noted = ledger.note_request("r-2", TOKEN)
    clip = a_file(ledger.folder.parent / "clips")
    ledger.saved(noted.id, [clip], cost_usd=0.4)
    adopted = ledger.adopt(ONE, "r-2", token=TOKEN, **FACTS)
    assert (adopted.state, adopted.files, adopted.cost_usd) == ("saved", (clip,), 0.4)
    assert (adopted.fingerprint, adopted.seconds) == (ONE, FACTS["seconds"])
    after = opened(ledger, OTHER)
    assert after.files == () and after.id not in (adopted.id, before.id)


def test_a_fetched_request_is_noted_once(ledger: Ledger) -> None:
    noted = ledger.note_request("r-1", TOKEN)
    assert (noted.state, noted.fingerprint, noted.seconds) == ("submitted", None, None)
    assert ledger.note_request("r-1", TOKEN) == noted
    known = submitted(ledger, "r-2")
    assert ledger.note_request("r-2", TOKEN) == known
    assert ledger.count() == 2


def test_a_clip_that_ends_after_its_inputs_were_submitted_anew_keeps_its_file(ledger: Ledger) -> None:
    first = REACH["cancelled"](ledger)
    second = submitted(ledger, "r-2")
    clip = a_file(ledger.folder.parent / "clips")
    ledger.saved(first.id, [clip])
    assert ledger.find(ONE) == second
    assert found(ledger.get(first.id)).files == (clip,)


def test_a_file_is_known_by_its_bytes(tmp_path: Path) -> None:
    clip = a_file(tmp_path / "clips", b"x" * 1000)
    assert clip.is_intact()
    clip.path.write_bytes(b"y" * 1000)
    assert not clip.is_intact()
    clip.path.unlink()
    assert not clip.is_intact()


def test_the_account_is_known_by_its_token_alone(ledger: Ledger, tmp_path: Path) -> None:
    entry = opened(ledger)
    assert ledger.is_account(entry, TOKEN)
    assert not ledger.is_account(entry, TOKEN + "2")
    # Keyed by the ledger: the same token cannot be recognised by its mark in another one.
    assert opened(Ledger(tmp_path / "other")).account != entry.account


def test_durations_and_rates_are_of_such_clips_newest_first(ledger: Ledger) -> None:
    for n, (cost, worked) in enumerate([(1.0, 50.0), (2.0, 60.0), (None, 70.0)]):
        saved(ledger, f"r-{n}", f"{n}" * 64, cost_usd=cost, worked=worked)
    assert ledger.durations(**FACTS) == [70.0, 60.0, 50.0]
    assert ledger.rates(FACTS["model_id"], True) == [0.4, 0.2]
    assert ledger.durations(**FACTS | {"audio": False}) == [] == ledger.rates("another model", True)


def test_pages_run_backwards_through_all_entries(ledger: Ledger) -> None:
    ids = [submitted(ledger, f"r-{n}", f"{n}" * 64).id for n in range(5)]
    first = ledger.page(None, 3)
    rest = ledger.page(first[-1].id, 3)
    assert [entry.id for entry in first + rest] == ids[::-1]
    assert ledger.page(rest[-1].id, 3) == []


# What it must not hold


def raw_bytes(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FaultyServer]:
    with RehearsalServer(render=render, folder=tmp_path) as behind, FaultyServer(behind) as server:
        yield server


def test_no_token_image_or_unsaved_prompt_is_in_its_files(server: FaultyServer, tmp_path: Path) -> None:
    request = image_request("A sentence that nobody saved.")
    account = live_account(server.base_url, tmp_path)
    # Read in the midst of it too: a journal may hold what the file does not, and goes when all is done.
    during: list[bytes] = []
    workspace = plain_workspace(tmp_path, lambda facts: during.append(raw_bytes(account.ledger.folder)))
    delivery = run(request, account, workspace)
    everything = b"".join(during) + raw_bytes(account.ledger.folder)
    still = request.body["start_image_url"].pixels
    assert delivery.request_id.encode() in everything
    assert TOKEN.encode() not in everything
    assert b"nobody saved" not in everything
    assert b"base64" not in everything and still.tobytes()[:48] not in everything


def test_a_rehearsal_never_stands_for_a_live_clip(server: FaultyServer, tmp_path: Path) -> None:
    free, live = rehearsal(Settings()), live_account(server.base_url, tmp_path)
    name = fingerprint(text_request(), 0)
    rehearsed = submitted(free.ledger, "rehearsed", name)
    try:
        assert live.ledger.find(name) is None
        assert free.ledger.folder.resolve() != live.ledger.folder.resolve()
        delivery = run(text_request(), live, plain_workspace(tmp_path))
        assert [job.request_id for job in server.behind.jobs] == [delivery.request_id]
    finally:
        free.ledger.cancelled(rehearsed.id)


# Where it lies


def journal_mode(ledger: Ledger) -> str:
    connection = sqlite3.connect(ledger.path)
    try:
        return str(connection.execute("PRAGMA journal_mode").fetchone()[0])
    finally:
        connection.close()


@pytest.mark.parametrize(("shared", "mode"), [(False, "wal"), (True, "delete")])
def test_the_journal_suits_the_file_system(tmp_path: Path, shared: bool, mode: str) -> None:
    ledger = Ledger(tmp_path, shared=shared)
    entry = saved(ledger)
    assert journal_mode(ledger) == mode
    assert ledger.get(entry.id) == entry


def test_a_share_is_known_by_the_nearest_mount(tmp_path: Path) -> None:
    folder = (tmp_path / "user" / "default").resolve()
    root = Path(folder.anchor)
    assert not is_shared(folder, {root: "ext4"})
    assert is_shared(folder, {root: "ext4", folder.parent: "nfs4"})
    assert not is_shared(folder, {root: "nfs4", folder.parent: "ext4"})
    assert is_shared(folder, {root: "fuse.sshfs"})
    assert is_shared(folder, {root: "CIFS"})


def test_a_journal_left_without_its_ledger_is_not_read_into_a_new_one(ledger: Ledger) -> None:
    keeper = Ledger(ledger.folder)
    submitted(keeper)
    reader = sqlite3.connect(keeper.path)
    reader.execute("SELECT * FROM generations").fetchall()
    submitted(keeper, "r-2", OTHER)
    journal = Path(f"{keeper.path}-wal")
    kept = journal.read_bytes()
    reader.close()
    keeper.path.unlink()
    journal.write_bytes(kept)
    assert kept and ledger.count() == 0
    submitted(ledger, "r-3")
    ledger.check_not_damaged()


# Damage


def overwrite_page(path: Path, page: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(page * PAGE)
        file.write(content)


def drop_table(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE files")
    connection.commit()
    connection.close()


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "garbage": lambda path: path.write_bytes(random.Random(1).randbytes(5 * PAGE)),
    "emptied": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "first page lost": lambda path: overwrite_page(path, 0, bytes(PAGE)),
    "a page lost": lambda path: overwrite_page(path, 2, bytes(PAGE)),
    "a page of noise": lambda path: overwrite_page(path, 3, random.Random(2).randbytes(PAGE)),
    "a table gone": drop_table,
    "a text file": lambda path: path.write_text("hello " * 2000),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_ledger_is_set_aside_and_stops_submissions(
    server: FaultyServer, tmp_path: Path, damage: Callable[[Path], Any]
) -> None:
    account = live_account(server.base_url, tmp_path)
    ledger, workspace = account.ledger, plain_workspace(tmp_path)
    run(text_request(), account, workspace)
    damage(ledger.path)
    damaged = ledger.path.read_bytes()
    for _ in range(2):
        with pytest.raises(LedgerError) as told:
            run(text_request(), account, workspace, variation=1)
    aside = sorted(ledger.folder.glob("generations-damaged-*.sqlite3"))
    assert len(aside) == 1 and aside[0].name in str(told.value)
    assert aside[0].read_bytes() == damaged
    assert len(server.behind.jobs) == 1
    aside[0].rename(tmp_path / aside[0].name)
    run(text_request(), account, workspace, variation=1)
    assert len(server.behind.jobs) == 2


def test_no_misplaced_page_leads_to_a_second_payment(tmp_path: Path) -> None:
    whole = Ledger(tmp_path / "whole")
    names = [f"{n:064x}" for n in range(30)]
    for n, name in enumerate(names):
        saved(whole, f"r-{n}", name)
    content = whole.path.read_bytes()
    silent = 0
    pages = range(1, len(content) // PAGE)
    for page in pages:
        for other in pages:
            # As if a disk had written one page where another belongs: each is in order by itself.
            ledger = Ledger(tmp_path / "broken")
            ledger.folder.mkdir(exist_ok=True)
            ledger.path.write_bytes(content)
            overwrite_page(ledger.path, page, content[other * PAGE : (other + 1) * PAGE])
            try:
                if any(ledger.find(name) is None for name in names[::6]):
                    silent += 1
                    with pytest.raises(LedgerError):
                        ledger.check_not_damaged()
            except LedgerError:
                pass
            shutil.rmtree(ledger.folder)
    assert silent, "no page of this ledger misled a look-up, so that this test has shown nothing"


def test_the_journal_is_set_aside_with_its_ledger(ledger: Ledger) -> None:
    submitted(ledger)
    reader = sqlite3.connect(ledger.path)
    reader.execute("SELECT * FROM generations").fetchall()  # an open reader keeps the journal in place
    submitted(ledger, "r-2", OTHER)
    connection = sqlite3.connect(ledger.path)
    connection.execute("DROP TABLE secret")
    connection.commit()
    connection.close()
    with pytest.raises(LedgerError):
        opened(ledger, "3" * 64)
    reader.close()
    aside = {path.name.partition(".sqlite3")[2] for path in ledger.folder.glob("generations-damaged-*")}
    assert {"", "-wal"} <= aside
    assert not Path(f"{ledger.path}-wal").exists()


# No room, no right to write

SUBMIT_WITHOUT_ROOM = """
import resource, runpy, signal, sys
from pathlib import Path
root, folder, room = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
runpy.run_path(root + "/run.py")["load_pack"]()
from runcomfy_kling.nodes.errors import LedgerError
from runcomfy_kling.nodes.ledger import Ledger
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
ledger = Ledger(folder)
for n in range(1000):
    try:
        entry = ledger.open_submission(f"{n:064x}", model_id="m", seconds=5, audio=True, token="t")
    except LedgerError as error:
        print(n, error)
        break
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are POSIX's")
@pytest.mark.parametrize("room", [0, 20_000, 80_000])
def test_a_full_disk_stops_before_the_submission(tmp_path: Path, room: int) -> None:
    root = Path(__file__).resolve().parent.parent
    command = [sys.executable, "-c", SUBMIT_WITHOUT_ROOM, str(root), str(tmp_path / "ledger"), str(room)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    accepted, _, message = told.partition(" ")
    assert "free disk space" in message and FILE in message
    ledger = Ledger(tmp_path / "ledger")
    assert ledger.count() == int(accepted)
    ledger.check_not_damaged()
    opened(ledger)


@pytest.mark.parametrize("blocked", ["private", "private/ledger", "private/ledger/leases"])
def test_nothing_is_submitted_where_nothing_can_be_written(server: FaultyServer, tmp_path: Path, blocked: str) -> None:
    # A file where a folder should be: nothing can be written there, whoever runs this.
    (tmp_path / blocked).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / blocked).write_text("in the way")
    with pytest.raises(LedgerError, match="writable"):
        run(text_request(), live_account(server.base_url, tmp_path), plain_workspace(tmp_path))
    assert server.calls == []


def test_a_locked_ledger_is_waited_for(ledger: Ledger) -> None:
    submitted(ledger)
    blocker = sqlite3.connect(ledger.path, isolation_level=None, check_same_thread=False)
    blocker.execute("BEGIN IMMEDIATE")
    waiting = start(opened, ledger, OTHER)
    assert ledger.find(OTHER) is None  # readers are not held up
    blocker.execute("COMMIT")
    blocker.close()
    assert waiting.result().state == "submitting"
