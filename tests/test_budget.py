"""The session's budget: parallel nodes cannot pass it together, and a price that is not known is no price."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from corridor import live_account, plain_workspace, render, run, text_request
from faults import DROPPED_AFTER, EMPTY, FaultyServer, error
from runcomfy_kling.nodes.budget import SessionBudget
from runcomfy_kling.nodes.errors import BudgetError, FailedError, RefusedError, UncertainError
from runcomfy_kling.nodes.generation import session_budget
from runcomfy_kling.nodes.pricing import catalogue, estimate
from runcomfy_kling.nodes.rehearsal.server import RehearsalServer

PRICE = 0.25  # a second; the clips here have 3


@pytest.fixture
def budget() -> SessionBudget:
    return SessionBudget()


def test_what_is_reserved_counts_until_it_is_released(budget: SessionBudget) -> None:
    budget.reserve("a", 2.0, 5.0)
    budget.reserve("b", 3.0, 5.0)
    with pytest.raises(BudgetError, match=r"1\.50 USD.*5\.00 USD.*budget of 5 USD"):
        budget.reserve("c", 1.5, 5.0)
    budget.release("b")
    budget.reserve("c", 3.0, 5.0)


def test_the_reported_cost_takes_the_place_of_the_estimate(budget: SessionBudget) -> None:
    budget.reserve("a", 4.0, 5.0)
    budget.settle("a", 1.0)
    budget.reserve("b", 4.0, 5.0)
    budget.settle("b", None)
    with pytest.raises(BudgetError, match=r"5\.00 USD"):
        budget.reserve("c", 0.5, 5.0)


def test_a_clip_of_an_earlier_session_is_not_counted(budget: SessionBudget) -> None:
    budget.settle("a", 100.0)
    budget.reserve("b", 5.0, 5.0)


def test_a_generation_is_not_counted_against_itself(budget: SessionBudget) -> None:
    budget.reserve("a", 4.0, 5.0)
    budget.reserve("a", 4.0, 5.0)
    with pytest.raises(BudgetError):
        budget.reserve("b", 2.0, 5.0)


def test_an_unknown_price_is_refused(budget: SessionBudget) -> None:
    with pytest.raises(BudgetError, match="not known"):
        budget.reserve("a", None, 1000.0)
    budget.reserve("a", 0.0, 0.0)


def test_parallel_reservations_cannot_pass_the_limit(budget: SessionBudget) -> None:
    threads = 16
    together = Barrier(threads)

    def reserve(name: str) -> bool:
        together.wait()
        try:
            budget.reserve(name, 0.5, 3.0)
        except BudgetError:
            return False
        return True

    with ThreadPoolExecutor(threads) as pool:
        assert sum(pool.map(reserve, map(str, range(threads)))) == 6


# Over the whole corridor. The budget is the session's, so each test spends from where the others stopped.


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FaultyServer]:
    with (
        RehearsalServer(render=render, folder=tmp_path, base_price_usd=PRICE) as behind,
        FaultyServer(behind) as server,
    ):
        yield server


def limit_for(clips: int) -> float:
    """A limit that leaves room for so many clips of 3 s."""
    spent = 0.0
    while True:
        try:
            session_budget.reserve("probe", spent, 1e6)
            session_budget.reserve("probe", 0.0, spent)
        except BudgetError:
            spent += PRICE
        else:
            return spent + clips * 3 * PRICE
        finally:
            session_budget.release("probe")


def test_parallel_generations_cannot_pass_the_limit(server: FaultyServer, tmp_path: Path) -> None:
    account = live_account(server.base_url, tmp_path, budget_usd=limit_for(2))
    workspace = plain_workspace(tmp_path)

    def ask(variation: int) -> bool:
        try:
            run(text_request(), account, workspace, variation=variation)
        except BudgetError:
            return False
        return True

    with ThreadPoolExecutor(5) as pool:
        assert sum(pool.map(ask, range(5))) == 2
    assert len(server.behind.jobs) == 2


def test_a_refusal_and_a_confirmed_failure_give_the_reservation_back(server: FaultyServer, tmp_path: Path) -> None:
    account = live_account(server.base_url, tmp_path, budget_usd=limit_for(1))
    workspace = plain_workspace(tmp_path)
    server.inject("submit", error(402))
    with pytest.raises(RefusedError):
        run(text_request(), account, workspace)
    server.behind.outcome = "failed"  # costs nothing, as its result says
    with pytest.raises(FailedError):
        run(text_request(), account, workspace)
    server.behind.outcome = "succeeded"
    run(text_request(), account, workspace)
    with pytest.raises(BudgetError):
        run(text_request(), account, workspace, variation=1)
    # What is paid already is delivered whatever the budget.
    assert run(text_request(), account, workspace).reused


def test_a_doubtful_submission_keeps_its_reservation(server: FaultyServer, tmp_path: Path) -> None:
    account = live_account(server.base_url, tmp_path, budget_usd=limit_for(1))
    workspace = plain_workspace(tmp_path)
    server.inject("submit", DROPPED_AFTER)
    with pytest.raises(UncertainError):
        run(text_request(), account, workspace)
    with pytest.raises(BudgetError):
        run(text_request(), account, workspace, variation=1)
    assert len(server.behind.jobs) == 1


def test_without_a_price_nothing_is_submitted_under_a_budget(server: FaultyServer, tmp_path: Path) -> None:
    server.inject("catalogue", EMPTY)
    account = live_account(server.base_url, tmp_path, budget_usd=limit_for(1000))
    with pytest.raises(BudgetError, match="not known"):
        run(text_request(), account, plain_workspace(tmp_path))
    assert server.behind.jobs == []


def test_what_such_clips_cost_lately_goes_before_the_catalogue(server: FaultyServer, tmp_path: Path) -> None:
    account = live_account(server.base_url, tmp_path)
    request = text_request()
    facts = (request.endpoint.model_id, request.seconds, request.audio)
    first = estimate(account.client, account.ledger, *facts)
    assert (first.usd, first.at_least, first.source) == (3 * PRICE, True, "catalogue")
    assert catalogue.price(account.client, request.endpoint.model_id)
    server.behind.base_price_usd = 2 * PRICE
    run(request, account, plain_workspace(tmp_path))
    second = estimate(account.client, account.ledger, *facts)
    assert (second.usd, second.at_least, second.source) == (6 * PRICE, False, "ledger")
