"""Who leads and who waits, read from locks of the operating system: over threads, processes and sudden deaths."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from runcomfy_kling.nodes.errors import LedgerError
from runcomfy_kling.nodes.lease import Lease

ONE, OTHER = "1" * 64, "2" * 64

# Does what it is told, line by line, and prints what came of it.
OTHER_PROCESS = """
import runpy, sys
from pathlib import Path
runpy.run_path(sys.argv[1] + "/run.py")["load_pack"]()
from runcomfy_kling.nodes.lease import Lease
lease = Lease(Path(sys.argv[2]), sys.argv[3])
print("joined", flush=True)
for line in sys.stdin:
    print(getattr(lease, line.strip())(), flush=True)
"""


class Waiter:
    """A waiter in a process of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        root = str(Path(__file__).resolve().parent.parent)
        self._process = subprocess.Popen(
            [sys.executable, "-c", OTHER_PROCESS, root, str(folder), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._answer() == "joined"

    def _answer(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()

    def does(self, what: str) -> str:
        assert self._process.stdin
        print(what, file=self._process.stdin, flush=True)
        return self._answer()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def other_process(tmp_path: Path) -> Iterator[Callable[[str], Waiter]]:
    waiters: list[Waiter] = []

    def join(name: str) -> Waiter:
        waiters.append(Waiter(tmp_path, name))
        return waiters[-1]

    yield join
    for waiter in waiters:
        waiter.kill()


def test_one_leads_and_the_next_takes_over(tmp_path: Path) -> None:
    first, second = Lease(tmp_path, ONE), Lease(tmp_path, ONE)
    assert first.try_lead() and not second.try_lead()
    assert first.try_lead(), "asking again changes nothing"
    assert not first.leave(), "another waits"
    assert second.try_lead(), "so the lead is theirs at once"
    first.give_up_lead()
    assert second.leads and second.leave()


def test_the_last_one_keeps_the_lead_until_it_gives_it_up(tmp_path: Path) -> None:
    last = Lease(tmp_path, ONE)
    assert last.try_lead() and last.leave() and last.leads
    late = Lease(tmp_path, ONE)
    assert not late.try_lead(), "the last one may be cancelling"
    last.give_up_lead()
    assert late.try_lead()


def test_generations_do_not_concern_each_other(tmp_path: Path) -> None:
    one, other = Lease(tmp_path, ONE), Lease(tmp_path, OTHER)
    assert one.try_lead() and other.try_lead()
    assert one.leave() and other.leave()


def test_a_lease_given_up_cannot_be_taken_by_a_thread_that_still_asks(tmp_path: Path) -> None:
    gone = Lease(tmp_path, ONE)
    gone.leave()
    gone.give_up_lead()
    assert not gone.try_lead()
    assert Lease(tmp_path, ONE).try_lead()


def test_among_threads_one_leads_and_one_is_last(tmp_path: Path) -> None:
    threads = 12
    together = Barrier(threads)

    def wait_and_leave(_: int) -> tuple[bool, bool]:
        lease = Lease(tmp_path, ONE)
        together.wait()
        led = lease.try_lead()
        together.wait()
        last = lease.leave()
        # As on Stop: the last one needs the lead to cancel.
        could_cancel = last and lease.try_lead()
        lease.give_up_lead()
        return led, could_cancel

    with ThreadPoolExecutor(threads) as pool:
        led, could_cancel = zip(*pool.map(wait_and_leave, range(threads)), strict=True)
    assert (sum(led), sum(could_cancel)) == (1, 1)
    assert list((tmp_path / "waiting").iterdir()) == []


def test_processes_lead_and_follow(tmp_path: Path, other_process: Callable[[str], Waiter]) -> None:
    theirs = other_process(ONE)
    assert theirs.does("try_lead") == "True"
    ours = Lease(tmp_path, ONE)
    assert not ours.try_lead()
    assert not ours.leave(), "the other process waits"
    assert theirs.does("leave") == "True"
    assert theirs.does("give_up_lead") == "None"
    assert Lease(tmp_path, ONE).try_lead()


def test_a_killed_leader_neither_leads_nor_waits(tmp_path: Path, other_process: Callable[[str], Waiter]) -> None:
    leader, follower = other_process(ONE), other_process(ONE)
    assert leader.does("try_lead") == "True"
    leader.kill()
    assert follower.does("try_lead") == "True"
    follower.kill()
    ours = Lease(tmp_path, ONE)
    assert ours.try_lead()
    assert len(list((tmp_path / "waiting").iterdir())) == 3, "the dead left their files behind"
    assert ours.leave(), "which do not count"
    assert list((tmp_path / "waiting").iterdir()) == []


@pytest.mark.parametrize("blocked", ["folder", "door"])
def test_without_locks_there_is_no_waiting(tmp_path: Path, blocked: str) -> None:
    folder = tmp_path / "leases"
    if blocked == "folder":
        folder.write_text("in the way")
    else:
        (folder / "door").mkdir(parents=True)
    with pytest.raises(LedgerError, match=r"cannot be locked .*Nothing was submitted"):
        Lease(folder, ONE)
