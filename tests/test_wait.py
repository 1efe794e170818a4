"""Waiting for a request: against answers given one after the other, and at a pace that asks at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from corridor import TOKEN, render
from faults import DROPPED_AFTER, ERROR_500, HANGS, PAGE_502, FaultyServer, answered, error
from runcomfy_kling.nodes.errors import AccountError, UnavailableError, WaitTimeoutError
from runcomfy_kling.nodes.rehearsal.server import RehearsalServer
from runcomfy_kling.nodes.runcomfy.client import Client, NotNow, Result
from runcomfy_kling.nodes.runcomfy.pace import Pace
from runcomfy_kling.nodes.runcomfy.wait import asked, wait

MODEL = "kling/kling-3.0/pro/text-to-video"
BODY = {"prompt": "A train crosses a viaduct.", "duration": 3}
QUEUED, WORKING, ENDED = ({"status": state} for state in ("in_queue", "in_progress", "completed"))


class AtOnce(Pace):
    """A pace without pauses, which keeps what it was told."""

    def __init__(self) -> None:
        super().__init__([])
        self.told: list[dict[str, Any]] = []

    def delay(self, waited: float, **facts: Any) -> float:
        assert super().delay(waited, **facts) >= 1
        self.told.append({"waited": waited, **facts})
        return 0.0


class Waiting:
    """One accepted request at one faulty server."""

    def __init__(self, server: FaultyServer) -> None:
        self.server = server
        self.client = Client(server.base_url, TOKEN)
        self.request_id = self.client.submit(MODEL, BODY)
        self.pace = AtOnce()
        self.shown: list[dict[str, Any]] = []

    def answers(self, *statuses: dict[str, Any]) -> None:
        self.server.inject("status", *(answered(200, status) for status in statuses))

    async def wait(self, timeout: float = 60.0, submitted: float | None = None) -> tuple[Result, float | None]:
        return await wait(
            self.client,
            self.request_id,
            pace=self.pace,
            submitted=time.time() if submitted is None else submitted,
            timeout=timeout,
            show=lambda **facts: self.shown.append(facts),
        )


@pytest.fixture
def waiting() -> Iterator[Waiting]:
    with RehearsalServer(render=render, base_price_usd=0.14) as behind, FaultyServer(behind) as server:
        yield Waiting(server)


def test_one_that_has_ended_is_asked_for_once(waiting: Waiting) -> None:
    result, worked = asyncio.run(waiting.wait())
    assert (result.state, len(result.videos), worked) == ("succeeded", 1, None)
    assert (waiting.server.count("status"), waiting.server.count("result")) == (1, 1)
    assert waiting.shown == []


def test_the_node_is_shown_queue_and_work(waiting: Waiting) -> None:
    waiting.answers(QUEUED | {"queue_position": 2}, QUEUED | {"queue_position": 1}, QUEUED, WORKING)
    result, worked = asyncio.run(waiting.wait())
    assert result.state == "succeeded"
    assert worked is not None
    shown = [(facts["stage"], facts["queue_position"]) for facts in waiting.shown]
    assert shown == [("queued", 2), ("queued", 1), ("queued", None), ("generating", None)]
    assert [facts["queue_position"] for facts in waiting.pace.told] == [2, 1, None, None]


def test_time_in_the_queue_is_no_work(waiting: Waiting) -> None:
    """The pace learns from how long RunComfy works, and counts from when the request left the queue."""
    waiting.answers(QUEUED, WORKING)
    _, worked = asyncio.run(waiting.wait(submitted=time.time() - 5000))
    assert worked is not None
    assert worked < 2500
    assert all(told["waited"] < 2500 for told in waiting.pace.told)


def test_work_found_under_way_counts_from_the_submission(waiting: Waiting) -> None:
    waiting.answers(WORKING)
    _, worked = asyncio.run(waiting.wait(submitted=time.time() - 5000))
    assert worked is not None
    assert worked >= 5000
    assert waiting.pace.told[0]["waited"] >= 5000


def test_completed_with_a_pending_result_is_asked_again(waiting: Waiting) -> None:
    waiting.server.inject("result", answered(200, {"status": "in_progress"}), answered(200, {"status": "in_queue"}))
    result, _ = asyncio.run(waiting.wait())
    assert result.state == "succeeded"
    assert (waiting.server.count("status"), waiting.server.count("result")) == (3, 3)
    assert [facts["stage"] for facts in waiting.shown] == ["generating", "generating"]


def test_failures_in_a_row_are_counted_and_forgotten(waiting: Waiting) -> None:
    waiting.server.inject("status", DROPPED_AFTER, ERROR_500, PAGE_502, answered(200, WORKING), PAGE_502)
    result, _ = asyncio.run(waiting.wait())
    assert result.state == "succeeded"
    assert [told["failures"] for told in waiting.pace.told] == [1, 2, 3, 0, 1]


def test_a_result_that_cannot_be_read_is_a_failure_too(waiting: Waiting) -> None:
    waiting.server.inject("result", ERROR_500, answered(200, []))
    result, _ = asyncio.run(waiting.wait())
    assert result.state == "succeeded"
    assert [told["failures"] for told in waiting.pace.told] == [1, 2]


def test_what_the_server_asks_for_reaches_the_pace(waiting: Waiting) -> None:
    waiting.server.inject("status", error(429, Retry_After="1"), error(503, Retry_After="0"), error(429))
    asyncio.run(waiting.wait())
    assert [told["retry_after"] for told in waiting.pace.told] == [1.0, 0.0, None]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (error(404, 404001), UnavailableError),
        (error(403, 403001), UnavailableError),
        (error(400, 400004), AccountError),
        (error(401), AccountError),
    ],
)
@pytest.mark.parametrize("call", ["status", "result"])
def test_what_is_final_ends_the_wait(waiting: Waiting, call: str, fault: Any, kind: type[Exception]) -> None:
    waiting.server.inject(call, fault)
    with pytest.raises(kind, match="in other words"):
        asyncio.run(waiting.wait())
    assert waiting.server.count(call) == 1


def test_it_lets_go_in_time_and_says_what_to_do(waiting: Waiting) -> None:
    waiting.answers(QUEUED, QUEUED)
    with pytest.raises(WaitTimeoutError) as caught:
        asyncio.run(waiting.wait(timeout=0.0))
    message = str(caught.value)
    for word in (waiting.request_id, "still runs", "already paid", "run the node again", "nothing is submitted anew"):
        assert word in message
    assert waiting.server.count("status") == 1


def test_an_ended_request_is_found_even_when_there_is_no_time_left(waiting: Waiting) -> None:
    result, _ = asyncio.run(waiting.wait(timeout=0.0))
    assert result.state == "succeeded"


def test_cancelling_a_wait_does_not_wait_for_its_call(waiting: Waiting) -> None:
    waiting.server.inject("status", HANGS)

    async def stop() -> None:
        task = asyncio.create_task(waiting.wait())
        await asyncio.to_thread(waiting.server.wait_for, "status")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 10)

    asyncio.run(stop())


def test_a_hundred_waits_share_one_loop(waiting: Waiting) -> None:
    waiting.answers(*[QUEUED] * 100)

    async def all_of_them() -> list[tuple[Result, float | None]]:
        return await asyncio.gather(*(waiting.wait() for _ in range(100)))

    ended = asyncio.run(all_of_them())
    assert [result.state for result, _ in ended] == ["succeeded"] * 100
    assert waiting.server.count("status") == 200


def test_a_call_is_made_in_its_turn_and_its_error_kept(waiting: Waiting) -> None:
    waiting.server.inject("result", error(429, Retry_After="3"))
    with pytest.raises(NotNow) as caught:
        asyncio.run(asked(waiting.client.result, waiting.request_id))
    assert caught.value.retry_after == 3.0
