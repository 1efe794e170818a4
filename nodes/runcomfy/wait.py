"""Waiting for a request to end, without ever losing it to a bad poll."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from ..errors import WaitTimeoutError
from ..threads import start
from .client import Client, NotNow, Result
from .pace import Pace, PollBudget

# No single call may hold a wait up: a trickling answer resets the socket's own time limit for ever.
CALL_SECONDS = 60

poll_budget = PollBudget()


async def asked(call: Callable[..., Any], *args: Any) -> Any:
    """One call in its turn of the budget that all waiting generations share. Raises NotNow when it is slow."""
    await asyncio.sleep(poll_budget.reserve(time.monotonic()))
    try:
        return await asyncio.wait_for(asyncio.wrap_future(start(call, *args)), CALL_SECONDS)
    except asyncio.TimeoutError:
        raise NotNow(f"RunComfy did not answer within {CALL_SECONDS} s.") from None


async def wait(
    client: Client,
    request_id: str,
    *,
    pace: Pace,
    submitted: float,
    timeout: float,
    show: Callable[..., None],
) -> tuple[Result, float | None]:
    """Poll until the request has ended; return its result and how many seconds it worked.

    The seconds are None where it had ended before it was first looked at.

    submitted: Unix time. timeout: seconds from now until WaitTimeoutError; the request runs on.
    Raises UnavailableError or AccountError when RunComfy says that this account cannot see it.
    """
    let_go = time.monotonic() + timeout
    working_since = submitted
    failures = 0
    seen_running = False
    while True:
        after: float | None = None
        queue_position = None
        try:
            status = await asked(client.status, request_id)
            queue_position = status.queue_position
            if status.ended:
                result = await asked(client.result, request_id)
                if result.state != "pending":
                    return result, time.time() - working_since if seen_running else None
            seen_running = True
            if not status.working and not status.ended:
                working_since = time.time()
            failures = 0
            show(
                stage="generating" if status.working or status.ended else "queued",
                queue_position=queue_position,
                expected=pace.expected,
            )
        except NotNow as trouble:
            failures += 1
            after = trouble.retry_after
            if after:
                poll_budget.pause(time.monotonic(), min(after, CALL_SECONDS))
        left = let_go - time.monotonic()
        if left <= 0:
            raise WaitTimeoutError(
                f"Request {request_id} still runs after {timeout / 60:g} minutes of waiting. It is already paid: "
                "run the node again to take up the same request; nothing is submitted anew."
            )
        delay = pace.delay(
            time.time() - working_since, queue_position=queue_position, retry_after=after, failures=failures
        )
        await asyncio.sleep(min(delay, left))
