"""Killed at any moment and run again: never paid twice, and nothing that was noted is lost.

A program of its own walks the corridor (crash_run.py) and dies without a word: at a place of its own code, or
while the server holds its call. What it leaves behind is then taken up in this process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from corridor import live_account, plain_workspace, render, run, text_request, tiny_clip
from faults import CUT, HANGS, Fault
from gates import GatedServer
from runcomfy_kling.nodes.errors import UncertainError
from runcomfy_kling.nodes.identity import fingerprint
from runcomfy_kling.nodes.media import video
from runcomfy_kling.nodes.rehearsal.server import RehearsalServer

PROGRAM = Path(__file__).with_name("crash_run.py")
HANGS_ACCEPTED = replace(HANGS, name="hangs, accepted", forwarded=True)
NOTHING, UNCERTAIN, DELIVERED = "nothing was sent", "uncertain", "delivered"

# Where it dies by itself, and what the next run then finds.
PLACES = {
    "before it begins": ("corridor.py:_lead:followed = False", NOTHING),
    "before it is written down": ("ledger.py:open_submission:cursor = db.execute(", NOTHING),
    "written down, not committed": ("ledger.py:open_submission:return _entry(", NOTHING),
    "committed, nothing sent": ("client.py:submit:payload =", UNCERTAIN),
    "answered, id not read": ("client.py:submit:request_id =", UNCERTAIN),
    "id read, not noted": ("generation.py:_submit_and_note:log.info(", UNCERTAIN),
    "id noted, not committed": ("ledger.py:submitted:return _entry(", UNCERTAIN),
    "id committed": ("corridor.py:_deliver:request_id =", DELIVERED),
    "result read": ("corridor.py:_deliver:if not self.result.videos", DELIVERED),
    "before the download": ("download.py:_receive:length =", DELIVERED),
    "downloaded": ("corridor.py:_embedded:video.embed(", DELIVERED),
    "before it is published": ("save.py:publish:counter =", DELIVERED),
    "published": ("corridor.py:_saved:", DELIVERED),
    "saved, not committed": ("ledger.py:saved:db.executemany(", DELIVERED),
    "saved": ("corridor.py:_saved:log.info(", DELIVERED),
    "about to leave": ("lease.py:leave:", DELIVERED),
    "has left": ("lease.py:give_up_lead:", DELIVERED),
}
# Where the server holds a call while it dies.
CALLS = {
    "submission under way": ("submit", HANGS, UNCERTAIN),
    "accepted, not answered": ("submit", HANGS_ACCEPTED, UNCERTAIN),
    "waiting": ("status", HANGS, DELIVERED),
    "asking for the result": ("result", HANGS, DELIVERED),
    "asking for the file": ("download", HANGS, DELIVERED),
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GatedServer]:
    with RehearsalServer(render=render, folder=tmp_path) as behind, GatedServer(behind) as server:
        yield server


def started(server: GatedServer, folder: Path, place: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, str(PROGRAM), server.base_url, str(folder), *([place] if place else [])]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def dies_at(place: str, server: GatedServer, folder: Path) -> None:
    process = started(server, folder, place)
    _, errors = process.communicate()
    assert process.returncode != 0, f"it never came to {place}"
    assert not errors, errors


def dies_during(kind: str, fault: Fault, server: GatedServer, folder: Path) -> None:
    server.inject(kind, fault)
    process = started(server, folder)
    try:
        server.wait_for(kind)
        if fault.forwarded:
            server.behind.wait_for(lambda: server.behind.jobs)
    finally:
        process.kill()
        process.communicate()


def taken_up(server: GatedServer, folder: Path) -> str:
    """Run again what was killed: what came of it, with everything checked that holds wherever it died."""
    account, workspace, request = live_account(server.base_url, folder), plain_workspace(folder), text_request()
    before = account.ledger.find(fingerprint(request, 0))
    accepted = server.accepted
    assert len(accepted) <= 1
    try:
        delivery = run(request, account, workspace)
    except UncertainError:
        outcome = UNCERTAIN
        assert before is not None and before.request_id is None
        with pytest.raises(UncertainError):
            run(request, account, workspace)
        assert server.accepted == accepted
        if not accepted:
            return outcome
        delivery = run(request, account, workspace, adopt=accepted[0])
    else:
        outcome = DELIVERED if before else NOTHING
        assert before is None or [before.request_id] == accepted
    assert server.accepted == [delivery.request_id]
    assert delivery.files[0].is_intact()
    for path in (folder / "output").glob("clip_*.mp4"):
        assert video.probe(path).frames == 12, "what has a clip's name is a whole clip"
    again = run(request, account, workspace)
    assert again.reused and again.files == delivery.files
    return outcome


@pytest.mark.parametrize("step", PLACES)
def test_killed_at_a_step(server: GatedServer, tmp_path: Path, step: str) -> None:
    place, expected = PLACES[step]
    dies_at(place, server, tmp_path)
    assert taken_up(server, tmp_path) == expected


@pytest.mark.parametrize("step", CALLS)
def test_killed_during_a_call(server: GatedServer, tmp_path: Path, step: str) -> None:
    kind, fault, expected = CALLS[step]
    dies_during(kind, fault, server, tmp_path)
    assert taken_up(server, tmp_path) == expected


def large(plan: Any, path: Path) -> None:
    """A clip of several blocks: the tiny one and a box of nothing."""
    room = 3 << 20
    path.write_bytes(tiny_clip() + room.to_bytes(4, "big") + b"free" + bytes(room - 8))


def test_killed_half_way_through_the_download(tmp_path: Path) -> None:
    with RehearsalServer(render=large, folder=tmp_path) as behind, GatedServer(behind) as server:
        server.inject("download", CUT)
        dies_at("download.py:fetch:raise NotNow(", server, tmp_path)
        (half,) = [path for path in (tmp_path / "output").iterdir() if path.stat().st_size]
        assert half.name.startswith(".") and half.stat().st_size < 3 << 20
        assert taken_up(server, tmp_path) == DELIVERED


def test_killed_again_while_it_is_taken_up(server: GatedServer, tmp_path: Path) -> None:
    dies_at("corridor.py:_deliver:request_id =", server, tmp_path)
    for place in ("save.py:publish:counter =", "ledger.py:saved:db.executemany(", "lease.py:leave:"):
        dies_at(place, server, tmp_path)
    assert taken_up(server, tmp_path) == DELIVERED


@pytest.mark.skipif(not os.environ.get("RUNCOMFY_KLING_NIGHTLY"), reason="hundreds of deaths: RUNCOMFY_KLING_NIGHTLY=1")
def test_killed_at_every_line(server: GatedServer, tmp_path: Path) -> None:
    process = started(server, tmp_path / "map")
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    places = output.splitlines()
    assert len(places) > 300
    outcomes = set()
    for n, place in enumerate(places):
        server.behind.jobs.clear()
        # Not asked whether it died there: what a thread does after the end may come too late for that.
        started(server, tmp_path / str(n), place).communicate()
        outcomes.add(taken_up(server, tmp_path / str(n)))
    assert outcomes == {NOTHING, UNCERTAIN, DELIVERED}
