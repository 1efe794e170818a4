"""Random lives of an account: whatever happens in whatever order, nothing is paid twice and nothing noted is lost.

CI plays 500 steps. RUNCOMFY_KLING_NIGHTLY=1 plays 10 000, and adds faults that have to be waited out. Both are
derived from the code of the machine alone, so that a failure comes back the same on every machine.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from corridor import fetch, live_account, plain_workspace, render, run, text_request
from faults import CUT, DROPPED_AFTER, DROPPED_BEFORE, EMPTY, ERROR_500, PAGE_200, PAGE_502, Fault, error
from gates import GatedServer, Node
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from runcomfy_kling.nodes.account import Account
from runcomfy_kling.nodes.corridor import Delivery
from runcomfy_kling.nodes.errors import KlingError, LedgerError, UncertainError
from runcomfy_kling.nodes.identity import fingerprint
from runcomfy_kling.nodes.kling.request import Request
from runcomfy_kling.nodes.ledger import Entry
from runcomfy_kling.nodes.media import video
from runcomfy_kling.nodes.rehearsal.server import Job, RehearsalServer
from test_crash import PLACES

NIGHTLY = bool(os.environ.get("RUNCOMFY_KLING_NIGHTLY"))
EXAMPLES, STEPS, AT_LEAST = (400, 30, 10_000) if NIGHTLY else (30, 25, 500)
TOKENS = ("a-first-token", "a-second-token")
# Edits: each is another generation.
PROMPTS = ("A train crosses a viaduct.", "A kite over the dunes.")
OUTCOMES = ("succeeded", "succeeded", "succeeded", "two_videos", "failed", "cancelled")

# What is answered at once; the others cost a pause each.
DOUBT = (DROPPED_BEFORE, DROPPED_AFTER, CUT, PAGE_200, PAGE_502, EMPTY, ERROR_500)
REFUSALS = tuple(error(status) for status in (400, 401, 402, 403, 404, 413, 422))
UNAVAILABLE = (error(403, 403001), error(404, 404001), error(400, 400004))
QUICK = [("submit", fault) for fault in DOUBT + REFUSALS] + [
    (call, fault) for call in ("status", "result") for fault in UNAVAILABLE
]
SLOW = [(call, fault) for call in ("status", "result", "download") for fault in DOUBT]
FAULTS = QUICK + SLOW if NIGHTLY else QUICK

# What happened over all lives.
happened: Counter[str] = Counter()


class Life(RuleBasedStateMachine):
    """Two tokens, two generations, one ledger, and a server that remembers everything it ever accepted."""

    server: GatedServer
    program: subprocess.Popen[str]

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="runcomfy-kling-"))
        self.token = TOKENS[0]
        self.server.release()
        self.server.behind.outcome = "succeeded"
        self.server.behind.jobs.clear()

    # What is true, whatever the code under test believes

    @property
    def jobs(self) -> list[Job]:
        return self.server.behind.jobs

    def jobs_of(self, prompt: str) -> list[Job]:
        return [job for job in self.jobs if job.body["prompt"] == prompt]

    def job(self, request_id: str | None) -> Job | None:
        return self.server.behind.find(request_id or "")

    def loose_jobs_of(self, prompt: str) -> list[Job]:
        """Paid, but not on record as the clip of its inputs: an answer was lost, or another request was adopted."""
        name, ledger = fingerprint(self.request(prompt), 0), self.account().ledger
        bound = {
            job.request_id for job in self.jobs if (e := ledger.find_request(job.request_id)) and e.fingerprint == name
        }
        return [job for job in self.jobs_of(prompt) if is_good(job) and job.request_id not in bound]

    # Means

    def account(self, token: str = "") -> Account:
        return live_account(self.server.base_url, self.folder, token=token or self.token)

    def request(self, prompt: str) -> Request:
        return text_request(prompt)

    def entry(self, prompt: str) -> Entry | None:
        return self.account().ledger.find(fingerprint(self.request(prompt), 0))

    def run(self, prompt: str, token: str = "", adopt: str = "") -> Delivery:
        workspace = plain_workspace(self.folder)
        delivery = run(self.request(prompt), self.account(token), workspace, adopt=adopt)
        self.check(delivery)
        job = self.job(delivery.request_id)
        assert job and job.body["prompt"] == prompt
        return delivery

    def check(self, delivery: Delivery) -> None:
        job = self.job(delivery.request_id)
        assert job and is_good(job)
        for file in delivery.files:
            assert file.is_intact() and video.probe(file.path).frames == 12

    # What people and the world do

    @rule(prompt=st.sampled_from(PROMPTS))
    def run_it(self, prompt: str) -> None:
        before = self.entry(prompt)
        job = self.job(before.request_id) if before else None
        try:
            delivery = self.run(prompt)
        except UncertainError:
            assert before and before.state in ("submitting", "uncertain")
        except KlingError:
            assert not before or before.state in ("submitted", "saved")
            assert not (job and is_good(job) and job.token == self.token)
        else:
            happened["delivered"] += 1
            assert before is None or delivery.request_id == before.request_id

    @rule(prompt=st.sampled_from(PROMPTS), fault=st.sampled_from(FAULTS))
    def run_it_under_a_fault(self, prompt: str, fault: tuple[str, Fault]) -> None:
        self.server.inject(*fault)
        try:
            self.run(prompt)
        except UncertainError:
            happened["uncertain"] += 1
            accepted = len(self.jobs)
            with pytest.raises(UncertainError):
                self.run(prompt)
            assert len(self.jobs) == accepted
        except KlingError:
            pass
        finally:
            self.server.forget_faults()

    @rule(
        prompt=st.sampled_from(PROMPTS),
        working=st.booleans(),
        cancel=st.sampled_from([None, None, DROPPED_BEFORE, DROPPED_AFTER, PAGE_502]),
    )
    def stop_it(self, prompt: str, working: bool, cancel: Fault | None) -> None:
        if working:
            self.server.hold_work()
        else:
            self.server.hold()
        if cancel:
            self.server.inject("cancel", cancel)
        node = Node(run, self.account(), self.folder, self.request(prompt))
        if node.wait_until_shown("queued", "generating", "saved", "failed") in ("queued", "generating"):
            node.stop()
            node.wait_until_shown("stopped", saying="Request")
            happened["cancelled"] += self.jobs_of(prompt)[-1].ending == "cancelled"
        self.server.forget_faults()
        self.server.release()

    @precondition(lambda self: sys.platform == "linux")
    @rule(prompt=st.sampled_from(PROMPTS), step=st.sampled_from(sorted(PLACES)))
    def kill_it(self, prompt: str, step: str) -> None:
        place, _ = PLACES[step]
        job = {"url": self.server.base_url, "folder": str(self.folder), "place": place}
        print(json.dumps(job | {"prompt": prompt, "token": self.token}), file=self.program.stdin, flush=True)
        assert self.program.stdout
        happened["killed"] += int(self.program.stdout.readline()) == signal.SIGKILL

    @rule(outcome=st.sampled_from(OUTCOMES))
    def what_is_next_ends(self, outcome: str) -> None:
        self.server.behind.outcome = outcome

    @rule()
    def rotate_the_token(self) -> None:
        self.token = TOKENS[self.token == TOKENS[0]]

    @rule(prompt=st.sampled_from(PROMPTS), how=st.sampled_from(["move", "delete", "replace"]))
    def lose_the_file(self, prompt: str, how: str) -> None:
        entry = self.entry(prompt)
        for file in entry.files if entry else ():
            if not file.path.exists():
                continue
            happened["lost"] += 1
            if how == "replace":
                file.path.write_bytes(file.path.read_bytes()[::-1])
            elif how == "move":
                file.path.rename(file.path.with_suffix(".moved"))
            else:
                file.path.unlink()

    @rule(prompt=st.sampled_from(PROMPTS))
    def adopt_what_was_lost(self, prompt: str) -> None:
        for job in self.loose_jobs_of(prompt):
            happened["adopted"] += 1
            assert self.run(prompt, token=job.token, adopt=job.request_id).request_id == job.request_id

    @rule(prompt=st.sampled_from(PROMPTS), data=st.data())
    def adopt_any(self, prompt: str, data: st.DataObject) -> None:
        """Also what belongs to other inputs, has failed, or never was; but nothing false about a clip that is paid."""
        ledger, name = self.account().ledger, fingerprint(self.request(prompt), 0)
        loose = self.loose_jobs_of(prompt)
        requests = ["never-was"]
        for job in self.jobs:
            entry = ledger.find_request(job.request_id)
            is_theirs = entry is not None and entry.fingerprint not in (name, None)
            if is_theirs or (entry and job.body["prompt"] == prompt and not loose):
                requests.append(job.request_id)
        request_id = data.draw(st.sampled_from(requests))
        before = ledger.find_request(request_id)
        try:
            self.run(prompt, adopt=request_id)
        except LedgerError:
            assert before and before.fingerprint not in (name, None)
        except KlingError:
            assert before is None or before.fingerprint in (name, None)
        else:
            assert before and before.fingerprint in (name, None)

    @rule(data=st.data())
    @precondition(lambda self: self.jobs)
    def fetch_one(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(range(len(self.jobs))).map(self.jobs.__getitem__))
        self.fetch_it(job)

    @rule(prompt=st.sampled_from(PROMPTS))
    def look_and_settle(self, prompt: str) -> None:
        """The user looked at RunComfy, and nothing came of the submission."""
        entry = self.entry(prompt)
        if entry and entry.state == "uncertain" and not any(map(is_good, self.jobs_of(prompt))):
            happened["settled"] += 1
            self.account().ledger.settle(entry.id)

    # What must hold

    @invariant()
    def nothing_is_paid_twice(self) -> None:
        happened["step"] += 1
        for prompt in PROMPTS:
            assert len([job for job in self.jobs_of(prompt) if is_good(job)]) <= 1

    def teardown(self) -> None:
        """Everything that was ever paid can still be had, and for nothing."""
        accepted = len(self.jobs)
        for prompt in PROMPTS:
            self.adopt_what_was_lost(prompt)
            for job in filter(is_good, self.jobs_of(prompt)):
                assert self.run(prompt, token=job.token).request_id == job.request_id
        for job in self.jobs:
            self.fetch_it(job)
        assert len(self.jobs) == accepted
        shutil.rmtree(self.folder)

    def fetch_it(self, job: Job) -> None:
        try:
            delivery = fetch(job.request_id, self.account(job.token), plain_workspace(self.folder))
        except KlingError:
            assert not is_good(job)
        else:
            happened["fetched"] += 1
            assert delivery.request_id == job.request_id
            self.check(delivery)


def is_good(job: Job) -> bool:
    """Whether it was or will be paid: what fails or is cancelled costs nothing."""
    return job.outcome in ("succeeded", "two_videos") and job.ending != "cancelled"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[type[Life]]:
    command = [sys.executable, str(Path(__file__).with_name("crash_run.py"))]
    with (
        RehearsalServer(render=render, folder=tmp_path) as behind,
        GatedServer(behind) as server,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program,
    ):
        yield type("LifeAtServer", (Life,), {"server": server, "program": program})


def test_nothing_is_paid_twice_and_nothing_noted_is_lost(machine: Any) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            derandomize=True,
            database=None,
            # Shrinking would play real seconds again and again: the failing life is printed as it was.
            phases=[Phase.generate],
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert happened["step"] >= AT_LEAST
    # A life in which nothing goes wrong shows nothing. In a few lives the rarer things need not come up.
    rarer = {"adopted", "cancelled", "settled", "lost"} if NIGHTLY else set()
    assert {"delivered", "uncertain", "fetched"} | rarer <= set(+happened)
