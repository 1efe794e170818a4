import math
import threading

import pytest
from bench import simulation
from hypothesis import given
from hypothesis import strategies as st
from runcomfy_kling.nodes.runcomfy.pace import MAX_INTERVAL, Pace, PollBudget

RUBBISH = [0.0, -5.0, math.nan, math.inf, 1e12]
a_duration = st.one_of(st.floats(1, 14400), st.sampled_from(RUBBISH))


def around(median: float, sigma: float, count: int = 40) -> list[float]:
    return simulation.clips(count, median, median, sigma, seed=7)


@pytest.mark.parametrize(("sigma", "latest"), [(0.25, 0.85), (0.59, 1.45)])
def test_notices_sooner_than_a_3s_poller_with_no_more_calls(sigma: float, latest: float) -> None:
    durations = simulation.clips(2000, 130, 200, sigma, seed=1)
    ours, theirs = simulation.learning(Pace, durations), simulation.fixed(3, durations)
    assert ours.mean_delay <= latest
    assert ours.mean_calls <= theirs.mean_calls


def test_the_first_clip_ever_is_noticed_sooner_than_by_a_3s_poller() -> None:
    durations = simulation.clips(500, 130, 130, 0.6, seed=2)
    ours, theirs = simulation.unlearned(Pace, durations), simulation.fixed(3, durations)
    assert ours.mean_delay < theirs.mean_delay
    assert ours.mean_calls <= theirs.mean_calls


def test_a_sudden_doubling_is_never_slept_through() -> None:
    durations = [d * (2 if i >= 100 else 1) for i, d in enumerate(around(130, 0.25, 300))]
    ours, theirs = simulation.learning(Pace, durations), simulation.fixed(3, durations)
    assert max(ours.delays[100:120]) < 3
    # It has learned when the calls are back to par.
    assert ours.part(200, 300).mean_calls <= theirs.part(200, 300).mean_calls


def test_a_failure_at_once_is_noticed_soon_although_clips_take_minutes() -> None:
    pace = Pace(around(180, 0.1))
    for ended in (0.5, 2.0, 5.0):
        assert simulation.watch(pace, ended)[0] < 8


def test_polls_are_densest_when_the_end_is_likeliest() -> None:
    pace = Pace(around(130, 0.2))
    assert pace.delay(30) > 4 * pace.delay(130)


@given(
    st.lists(a_duration, max_size=60),
    st.floats(-10, 1e6),
    st.none() | st.integers(-1, 10_000),
    st.none() | st.floats(0, 7200),
    st.integers(0, 1000),
)
def test_any_delay_is_within_its_bounds(durations, waited, position, retry_after, failures) -> None:
    delay = Pace(durations).delay(waited, queue_position=position, retry_after=retry_after, failures=failures)
    assert max(1.0, retry_after or 0) <= delay <= max(MAX_INTERVAL, retry_after or 0)


@given(st.lists(a_duration, max_size=60))
def test_a_clip_that_overruns_is_still_asked_about(durations: list[float]) -> None:
    pace = Pace(durations)
    overdue = 1.5 * (pace.expected or 130.0)
    assert pace.delay(overdue) <= 6 + overdue / 20


def test_rubbish_in_the_ledger_changes_little() -> None:
    clean = around(130, 0.2)
    dirty = [*clean]
    for at, rubbish in zip(range(0, 40, 4), [*RUBBISH, 14000.0, 1.0, 14000.0, 0.0, math.nan], strict=True):
        dirty.insert(at, rubbish)
    assert Pace(dirty).expected == pytest.approx(Pace(clean).expected, rel=0.1)
    durations = around(130, 0.2, 300)
    late = [sum(simulation.watch(Pace(h), d)[0] for d in durations) / 300 for h in (clean, dirty)]
    assert late[1] < late[0] + 0.3


def test_expected_is_the_typical_recent_duration() -> None:
    assert Pace([]).expected is None
    assert Pace([0.0, math.nan]).expected is None
    assert Pace([90.0]).expected == pytest.approx(90)
    drifted = Pace([200.0] * 20 + [100.0] * 20).expected
    assert drifted is not None
    assert 150 < drifted < 200


def test_one_earlier_clip_does_not_narrow_the_view() -> None:
    few, many = Pace([130.0]), Pace([130.0] * 40)
    assert few.delay(60) < many.delay(60)


def test_the_queue_is_asked_about_by_position() -> None:
    pace = Pace(around(130, 0.2))
    delays = [pace.delay(1000, queue_position=p) for p in (0, 1, 2, 5, 500)]
    assert delays == sorted(delays)
    assert delays[1] <= 3
    assert delays[2] > delays[1]
    assert delays[-1] == MAX_INTERVAL


def test_failed_polls_back_off_and_recover() -> None:
    pace = Pace([130.0] * 40)
    delays = [pace.delay(130, failures=n) for n in range(8)]
    assert delays == sorted(delays)
    assert delays[0] < 2
    assert delays[3] > 5
    assert delays[-1] == MAX_INTERVAL


def test_a_hundred_waiting_share_the_budget_in_turn() -> None:
    budget = PollBudget(calls_per_second=50)
    waits = [budget.reserve(now=10.0) for _ in range(100)]
    assert waits == pytest.approx([i / 50 for i in range(100)])
    assert budget.reserve(now=12.5) == 0
    assert budget.reserve(now=12.5) == pytest.approx(1 / 50)


def test_an_idle_budget_saves_nothing_up() -> None:
    budget = PollBudget(calls_per_second=10)
    budget.reserve(now=0)
    assert [budget.reserve(now=1000) for _ in range(3)] == pytest.approx([0, 0.1, 0.2])


def test_a_pause_holds_everyone_and_only_as_long_as_asked() -> None:
    budget = PollBudget(calls_per_second=10)
    budget.pause(now=0, seconds=30)
    budget.pause(now=0, seconds=5)
    assert [budget.reserve(now=1) for _ in range(2)] == pytest.approx([29, 29.1])
    assert budget.reserve(now=100) == 0


def test_threads_never_get_the_same_slot() -> None:
    budget = PollBudget(calls_per_second=100)
    start, slots = threading.Barrier(8), []

    def take() -> None:
        start.wait()
        slots.extend([budget.reserve(now=0) for _ in range(200)])

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(slots) == pytest.approx([i / 100 for i in range(1600)])
