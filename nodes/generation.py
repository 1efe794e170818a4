"""A generation, from its inputs to a clip on disk: the way that every paid second takes.

    known already? ─▶ host its media ─▶ submit once ─▶ wait ─▶ download ─▶ save

Running the same generation again enters at the door where it stopped last.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from .account import Account
from .budget import SessionBudget
from .corridor import Corridor, Delivery, log
from .errors import AccountError, FailedError, LedgerError, RefusedError, UncertainError
from .identity import fingerprint
from .kling.request import Request
from .ledger import Entry
from .media import host
from .media.served import Store
from .media.way import Way
from .pricing import estimate
from .runcomfy.client import GENERATIONS_URL, NotNow, Result
from .threads import off_loop, start
from .workspace import Workspace

# Where RunComfy was not reached, or asked to wait, nothing was accepted: asking again cannot pay twice.
UNREACHED_TRIES = 4
PAUSE_SECONDS = 5.0
CANCEL_SECONDS = 5.0
KILLED = "the process ended before the answer was noted"
STOPPED = "stopped before it ran"
CANCEL_OUTCOMES = {True: "cancelled", False: "runs_on", None: "unconfirmed"}
BECAME = {
    "cancelled": "was cancelled. Running the node again submits it anew.",
    "runs_on": "can no longer be cancelled and runs on. Running the node again takes it up.",
    "unconfirmed": "may run on, since RunComfy did not confirm the cancel. Running the node again takes it up.",
}

session_budget = SessionBudget()


async def generate(
    request: Request, *, variation: int, prefix: str, adopt: str, account: Account, workspace: Workspace
) -> Delivery:
    """Deliver the clip of these inputs, submitting it only if it was never submitted before.

    adopt: a request id that is taken as the result of these inputs, or "".
    Raises KlingError or Stopped.
    """
    name = await off_loop(fingerprint, request, variation)
    return await _Generation(request, name, prefix, adopt, account, workspace).run()


class _Generation(Corridor):
    again = "Running the node again submits it anew."

    def __init__(
        self, request: Request, name: str, prefix: str, adopt: str, account: Account, workspace: Workspace
    ) -> None:
        super().__init__(name, prefix, account, workspace)
        self.request = request
        self.adopt = adopt
        self.facts: dict[str, Any] = {
            "model_id": request.endpoint.model_id,
            "seconds": request.seconds,
            "audio": request.audio,
        }
        self.store = Store(workspace.private / "media")
        self.before: Entry | None = None
        self.submission: Future[Entry] | None = None

    async def _lead(self) -> bool:
        if not self.lease.leads:
            self.before = await off_loop(self.ledger.newest, self.name)
        return await super()._lead()

    async def _entry(self, followed: bool) -> Entry:
        """The entry that is this generation: adopted, known already, or submitted now."""
        if self.adopt:
            return await off_loop(self._adopted)
        entry = await off_loop(self.ledger.find, self.name)
        if entry is None:
            if followed:
                await off_loop(self._share_outcome)
            return await self._submit()
        if entry.state == "submitting":
            # The lead is ours, so whoever was submitting is dead and took the answer with it.
            await off_loop(self.ledger.uncertain, entry.id, KILLED)
        if entry.state in ("submitting", "uncertain"):
            start(self._found, entry)
            raise UncertainError(_uncertain_sentence(entry.message or KILLED))
        self.progress.update(request_id=entry.request_id, reused=True)
        return entry

    def _adopted(self) -> Entry:
        return self.ledger.adopt(self.name, self.adopt, token=self.account.token, **self.facts)

    def _share_outcome(self) -> None:
        """A follower does not buy again what failed in front of its eyes; it may buy what another one stopped."""
        last = self.ledger.newest(self.name)
        before = self.before and (self.before.id, self.before.state)
        ended = last and last.state in ("failed", "cancelled") and last.message != STOPPED
        if last and ended and (last.id, last.state) != before:
            words = f": “{last.message}”" if last.message else ""
            raise FailedError(
                f"Request {last.request_id}, shared with another node, ended as {last.state}{words}. {self.again}"
            )

    async def _submit(self) -> Entry:
        if not self.account.free:
            await off_loop(self._may_spend)
        try:
            return await self._submit_once(await self._hosted())
        except BaseException as error:
            # Once a submission has left, only a clear refusal says that it cost nothing.
            if self.submission is None or isinstance(error, (RefusedError, AccountError)):
                session_budget.release(self.name)
                start(self.store.withdraw, self.name)
            raise

    async def _hosted(self) -> dict[str, Any]:
        """The request's body with a URL for each of its media. Raises HostingError before anything is paid."""
        settings, free = self.account.settings, self.account.free
        way: Way = host.Inline()
        if host.needs_hosting(self.request.body):
            way = await off_loop(lambda: host.choose(settings, self.store, self.name, free=free))
        try:
            body, notes = await off_loop(host.host_all, self.request.body, way)
        except BaseException:
            start(way.withdraw)
            raise
        for note in notes:
            self.progress.note(note)
        self.progress.update(stage="submitting")
        return body

    def _may_spend(self) -> None:
        """Raises LedgerError or BudgetError where nothing may be paid."""
        self.ledger.check_not_damaged()
        if (limit := self.account.settings.budget_usd) is not None:
            price = estimate(self.account.client, self.ledger, **self.facts)
            session_budget.reserve(self.name, price.usd, limit)

    async def _submit_once(self, body: dict[str, Any]) -> Entry:
        """Get one submission accepted. Asked again only where RunComfy clearly accepted nothing."""
        unreached = 0
        patience = self.account.settings.timeout
        while True:
            self.submission = start(self._submit_and_note, body)
            try:
                return await asyncio.wrap_future(self.submission)
            except NotNow as trouble:
                self.submission = None
                unreached += trouble.retry_after is None
                pause = PAUSE_SECONDS if trouble.retry_after is None else max(trouble.retry_after, 1.0)
                patience -= pause
                if unreached == UNREACHED_TRIES or patience < 0:
                    raise RefusedError(
                        f"{trouble} Nothing was submitted and nothing was spent. "
                        "Check the connection, or run again later."
                    ) from None
                self.progress.note(str(trouble))
                await asyncio.sleep(pause)

    def _submit_and_note(self, body: dict[str, Any]) -> Entry:
        """One step in one thread, which no Stop can split: the paid call and the note of its id."""
        entry = self.ledger.open_submission(self.name, token=self.account.token, **self.facts)
        try:
            request_id = self.account.client.submit(self.request.endpoint.model_id, body)
        except (NotNow, RefusedError, AccountError):
            self.ledger.forget(entry.id)
            raise
        except BaseException as error:
            why = str(error) if isinstance(error, UncertainError) else type(error).__name__
            with contextlib.suppress(LedgerError):  # what stays `submitting` is uncertain to the next run
                self.ledger.uncertain(entry.id, why)
            self._found(entry)
            raise UncertainError(_uncertain_sentence(why)) from None
        log.info("RunComfy request %s submitted to %s", request_id, self.request.endpoint.model_id)
        try:
            return self.ledger.submitted(entry.id, request_id)
        except LedgerError as error:
            raise LedgerError(
                f"Request {request_id} was accepted by RunComfy and is paid, but could not be noted: {error} Once the "
                "record can be written, put this id into request_id and run: nothing is submitted anew."
            ) from None

    def _leave(self, stopped: bool) -> None:
        if self.submission:
            with contextlib.suppress(Exception):
                self.submission.result()
        if self.lease.leave() and stopped and self.lease.try_lead():
            self._cancel()
        self.lease.give_up_lead()

    def _cancel(self) -> None:
        """The last one who waited was stopped: ask once to cancel, and say what became of it."""
        entry = self.ledger.find(self.name)
        if entry is None or entry.state != "submitted" or entry.request_id is None:
            return
        outcome = CANCEL_OUTCOMES[self.account.client.cancel(entry.request_id, CANCEL_SECONDS)]
        if outcome == "cancelled":
            self.ledger.cancelled(entry.id, STOPPED)
            session_budget.release(self.name)
            self.store.withdraw(self.name)
        message = f"Request {entry.request_id} {BECAME[outcome]}"
        log.info(message)
        self.progress.update(stage="stopped", request_id=entry.request_id, message=message, outcome=outcome)

    def _ended(self, entry: Entry, result: Result) -> None:
        session_budget.settle(self.name, result.cost_usd)
        self.store.withdraw(self.name)
        super()._ended(entry, result)

    def _found(self, entry: Entry) -> None:
        """Let the editor say of this graph that it is paid. Not worth failing for, whatever other nodes answer."""
        with contextlib.suppress(Exception):
            if known := self.workspace.signature():
                self.ledger.note_graph(known, entry.id)

    def _durations(self) -> Sequence[float]:
        return self.ledger.durations(**self.facts) or self.account.usual

    def _prompt(self) -> str | None:
        return self.request.body["prompt"]


def _uncertain_sentence(why: str) -> str:
    return (
        f"RunComfy may have accepted this submission and charged for it: {why}. Nothing is submitted again for these "
        f"inputs until that is settled. Look under Generations in RunComfy ({GENERATIONS_URL}). If the clip is there, "
        "put its request id into request_id and run: nothing is submitted, and the clip becomes the result of these "
        "inputs. If it is not there, choose another variation."
    )
