"""Many ask for one clip: one submission, one file, one cancel; and Stop, failure or a closing loop split none of it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from corridor import fetch, live_account, plain_workspace, render, run, text_request, tiny_clip
from faults import DROPPED_AFTER, DROPPED_BEFORE, HANGS
from gates import GatedServer, Node
from runcomfy_kling.nodes.account import Account
from runcomfy_kling.nodes.corridor import Delivery
from runcomfy_kling.nodes.errors import CancelledRequestError, FailedError, UnavailableError, UncertainError
from runcomfy_kling.nodes.generation import generate
from runcomfy_kling.nodes.identity import fingerprint
from runcomfy_kling.nodes.ledger import Entry, SavedFile
from runcomfy_kling.nodes.outputs import BringsClip, delivered
from runcomfy_kling.nodes.rehearsal.server import RehearsalServer

PROGRAM = Path(__file__).with_name("crash_run.py")
THREADS = 20


class Scene:
    def __init__(self, server: GatedServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.account = live_account(server.base_url, folder)
        self.workspace = plain_workspace(folder)
        self.request = text_request()

    def node(self) -> Node:
        return Node(run, self.account, self.folder, self.request)

    def fetching(self, request_id: str) -> Node:
        return Node(fetch, self.account, self.folder, request_id)

    def run(self) -> Delivery:
        return run(self.request, self.account, self.workspace)

    def entry(self) -> Entry:
        entry = self.account.ledger.newest(fingerprint(self.request, 0))
        assert entry is not None
        return entry

    def generation(self) -> Awaitable[Delivery]:
        return generate(
            self.request, variation=0, prefix="clip", adopt="", account=self.account, workspace=self.workspace
        )

    def clips(self) -> list[Path]:
        return sorted((self.folder / "output").glob("clip_*.mp4"))


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with RehearsalServer(render=render, folder=tmp_path) as behind, GatedServer(behind) as server:
        yield Scene(server, tmp_path)


# One submission


def test_twenty_threads_and_two_processes_share_one_submission(scene: Scene) -> None:
    scene.server.keep_back("submit")
    command = [sys.executable, str(PROGRAM), scene.server.base_url, str(scene.folder)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    nodes = [scene.node() for _ in range(THREADS)]
    scene.server.wait_for("submit")
    stages = [node.wait_until_shown("sharing", "submitting") for node in nodes]
    for process in processes:
        assert process.stdout
        # Each place that the program passes is a line: now it has asked for the lead.
        while not process.stdout.readline().startswith("lease.py:try_lead:"):
            assert process.poll() is None
    scene.server.let_go("submit")
    assert stages.count("submitting") <= 1
    deliveries = [node.delivery() for node in nodes]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    assert scene.server.accepted == [deliveries[0].request_id]
    assert {delivery.files for delivery in deliveries} == {deliveries[0].files}
    assert scene.clips() == [deliveries[0].files[0].path]
    assert sum(not delivery.reused for delivery in deliveries) <= 1


def test_identical_nodes_in_one_loop_share_one_submission(scene: Scene) -> None:
    async def graph() -> list[Delivery]:
        return await asyncio.gather(scene.generation(), scene.generation(), scene.generation())

    deliveries = asyncio.run(graph())
    assert scene.server.accepted == [deliveries[0].request_id]
    assert {delivery.files for delivery in deliveries} == {deliveries[0].files}


def test_another_variation_is_another_clip(scene: Scene) -> None:
    first, second = scene.run(), run(scene.request, scene.account, scene.workspace, variation=1)
    assert scene.server.accepted == [first.request_id, second.request_id]
    assert scene.clips() == [first.files[0].path, second.files[0].path]


@pytest.mark.parametrize("joins", ["submit", "status"])
def test_a_failure_in_front_of_a_follower_is_shared(scene: Scene, joins: str) -> None:
    scene.server.behind.outcome = "failed"
    scene.server.keep_back(joins)
    leader = scene.node()
    scene.server.wait_for(joins)
    follower = scene.node()
    follower.wait_until_shown("sharing")
    scene.server.let_go(joins)
    with pytest.raises(FailedError, match="failed at RunComfy"):
        leader.delivery()
    with pytest.raises(FailedError, match=f"{scene.server.accepted[0]}, shared with another node"):
        follower.delivery()
    assert len(scene.server.accepted) == 1
    scene.server.behind.outcome = "succeeded"
    assert scene.run().request_id == scene.server.accepted[1]


# Stop


def test_stop_by_one_of_two_hands_over_and_by_the_last_cancels_once(scene: Scene) -> None:
    scene.server.hold()
    leader = scene.node()
    leader.wait_until_shown("queued")
    follower = scene.node()
    follower.wait_until_shown("sharing")
    leader.stop()
    follower.wait_until_shown("queued")
    assert scene.server.count("cancel") == 0 and scene.entry().state == "submitted"
    follower.stop()
    follower.wait_until_shown("stopped", saying="was cancelled")
    assert scene.server.count("cancel") == 1 and scene.entry().state == "cancelled"
    scene.server.release()
    assert scene.run().request_id == scene.server.accepted[1]


def test_a_stopped_follower_cancels_nothing(scene: Scene) -> None:
    scene.server.keep_back("status")
    leader = scene.node()
    scene.server.wait_for("status")
    follower = scene.node()
    follower.wait_until_shown("sharing")
    follower.stop()
    scene.server.let_go("status")
    assert leader.delivery().request_id == scene.server.accepted[0]
    assert scene.server.count("cancel") == 0


def test_all_stopped_at_once_cancel_once(scene: Scene) -> None:
    scene.server.hold()
    nodes = [scene.node() for _ in range(6)]
    for node in nodes:
        node.wait_until_shown("queued", "sharing")
    with ThreadPoolExecutor(len(nodes)) as pool:
        list(pool.map(Node.stop, nodes))
    scene.server.behind.wait_for(lambda: scene.server.behind.jobs[0].finished_at)
    scene.server.release()
    # Run again at once, while the last one may still be noting its cancel: that is no failure to share.
    assert scene.run().request_id == scene.server.accepted[1]
    assert scene.server.count("cancel") == 1


def test_run_again_while_the_cancel_is_under_way_submits_anew(scene: Scene) -> None:
    scene.server.hold()
    scene.server.keep_back("cancel")
    stopped = scene.node()
    stopped.wait_until_shown("queued")
    stopped.stop()
    # Not only on its way to the server: what is released before would run.
    scene.server.behind.wait_for(lambda: scene.server.behind.jobs[0].state == "cancelled")
    again = scene.node()
    again.wait_until_shown("sharing")
    scene.server.let_go("cancel")
    scene.server.release()
    assert again.delivery().request_id == scene.server.accepted[1]


def test_what_cannot_be_cancelled_is_taken_up(scene: Scene) -> None:
    scene.server.hold_work()
    node = scene.node()
    node.wait_until_shown("generating")
    node.stop()
    node.wait_until_shown("stopped", saying="can no longer be cancelled")
    assert scene.entry().state == "submitted"
    scene.server.release()
    assert [scene.run().request_id] == scene.server.accepted


def test_a_graph_is_known_from_its_submission_on(scene: Scene) -> None:
    scene.workspace = replace(scene.workspace, signature=lambda: "this graph")
    scene.server.inject("submit", DROPPED_AFTER)
    with pytest.raises(UncertainError):
        scene.run()
    found = scene.account.ledger.find_graph("this graph")
    assert found is not None
    assert (found.id, found.state) == (scene.entry().id, "uncertain")


def test_an_unconfirmed_cancel_keeps_the_request(scene: Scene) -> None:
    scene.server.hold()
    scene.server.inject("cancel", DROPPED_BEFORE, DROPPED_AFTER)
    for _ in range(2):
        node = scene.node()
        node.wait_until_shown("queued")
        node.stop()
        node.wait_until_shown("stopped", saying="did not confirm")
        assert scene.entry().state == "submitted"
    scene.server.release()
    # The second cancel was taken, only its answer was lost.
    with pytest.raises(CancelledRequestError):
        scene.run()
    assert len(scene.server.accepted) == 1
    assert scene.run().request_id == scene.server.accepted[1]


def test_stop_during_the_submission_notes_the_id_and_cancels_it(scene: Scene) -> None:
    scene.server.hold()
    scene.server.keep_back("submit")
    node = scene.node()
    scene.server.wait_for("submit")
    node.stop()  # while its answer is still kept back
    assert scene.entry().state == "submitting"
    scene.server.let_go("submit")
    node.wait_until_shown("stopped", saying=f"{scene.server.behind.wait_for(lambda: scene.server.accepted)[0]} was")
    assert scene.entry().state == "cancelled" and scene.entry().request_id == scene.server.accepted[0]
    assert scene.server.count("cancel") == 1


def test_a_stopped_fetch_cancels_nothing(scene: Scene) -> None:
    scene.server.hold()
    request_id = scene.account.client.submit(scene.request.endpoint.model_id, dict(scene.request.body))
    node = scene.fetching(request_id)
    node.wait_until_shown("queued")
    node.stop()
    scene.server.release()
    assert fetch(request_id, scene.account, scene.workspace).request_id == request_id
    assert scene.server.count("cancel") == 0


# Another node of the graph fails, and ComfyUI closes the loop


@pytest.mark.parametrize("call", ["submit", "status", "result", "download"])
def test_a_loop_closes_while_a_call_is_kept_back_and_nothing_is_lost(scene: Scene, call: str) -> None:
    scene.server.keep_back(call)

    async def graph() -> None:
        node = asyncio.ensure_future(scene.generation())
        await asyncio.to_thread(scene.server.wait_for, call)
        node.cancel()
        with pytest.raises(asyncio.CancelledError):
            await node

    asyncio.run(graph())
    assert call not in scene.server.let_through, "the loop closed before the call was answered"
    scene.server.let_go(call)
    assert [scene.run().request_id] == scene.server.accepted
    assert scene.server.count("cancel") == 0


def test_a_failing_neighbour_does_not_end_what_runs(scene: Scene) -> None:
    scene.server.hold()

    async def graph() -> None:
        node = asyncio.ensure_future(scene.generation())
        await asyncio.to_thread(scene.server.wait_for, "status")
        assert not node.done()
        raise ValueError("another node")

    with pytest.raises(ValueError, match="another node"):
        asyncio.run(graph())
    scene.server.release()
    assert [scene.run().request_id] == scene.server.accepted
    assert scene.server.count("cancel") == 0


def test_a_loop_closes_while_a_cancel_is_never_answered(scene: Scene) -> None:
    scene.server.hold()
    scene.server.inject("cancel", HANGS)
    node = scene.node()
    node.wait_until_shown("queued")
    node.stop()  # raised at once, by a loop that has closed
    node.wait_until_shown("stopped", saying="did not confirm")
    assert scene.entry().state == "submitted"


# The account


def test_after_a_new_token_the_clip_of_the_old_one_is_neither_lost_nor_bought_again(scene: Scene) -> None:
    scene.server.keep_back("status")
    node = scene.node()
    scene.server.wait_for("status")
    node.stop()
    scene.server.let_go("status")
    renewed = live_account(scene.server.base_url, scene.folder, token="another-token")
    with pytest.raises(UnavailableError, match=r"another token .*Nothing was submitted anew"):
        run(scene.request, renewed, scene.workspace)
    delivery = scene.run()
    assert [delivery.request_id] == scene.server.accepted
    assert run(scene.request, renewed, scene.workspace).files == delivery.files


# ComfyUI's cache


def test_only_a_missing_file_makes_a_node_run_again(tmp_path: Path) -> None:
    clips = [tmp_path / f"{n}.mp4" for n in range(2)]
    for clip in clips:
        clip.write_bytes(tiny_clip())

    async def bring(account: Account, workspace: Any) -> Delivery:
        return Delivery("r-1", tuple(map(SavedFile.of, clips)), None, reused=False)

    def deliver() -> None:
        asyncio.run(delivered(bring, rehearsal=True, unique_id="5:7"))

    def changed(node: str = "5:7") -> Any:
        return BringsClip.IS_CHANGED(unique_id=node, prompt="of no concern")

    unseen = changed()
    deliver()
    assert changed() == changed() == unseen
    clips[1].unlink()
    assert changed() != unseen
    gone = changed()
    assert changed() == gone, "once told, the node runs once"
    clips[1].write_bytes(tiny_clip())
    deliver()
    assert changed() == gone
    clips[0].unlink()
    assert changed() not in (unseen, gone)
    assert changed("another") == unseen
