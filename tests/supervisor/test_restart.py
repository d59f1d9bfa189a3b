"""When a slot is filled again, and when it is not: the rules of restart and breaker."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.config import RestartConfig
from rbee.errors import ExitCode
from rbee.supervisor.breaker import Breaker, BreakerState
from rbee.supervisor.restart import Cause, Ending, Failure, Record, failure_of, judge

LIMITS = RestartConfig()
CRASH = Ending(was_asked=False, exit_code=None, ready_for_s=10.0)
LONG_SERVICE = replace(CRASH, ready_for_s=300.0)
NEVER_READY = replace(CRASH, ready_for_s=None)
MEMORY = replace(CRASH, exit_code=ExitCode.OUT_OF_MEMORY)


@pytest.mark.parametrize(
    ("ending", "cause", "stays_empty"),
    [
        (CRASH, Cause.CRASH, False),
        (replace(CRASH, exit_code=0), Cause.CRASH, False),  # it was not asked to
        (replace(CRASH, exit_code=ExitCode.CONFIG), Cause.CRASH, False),  # it has served
        (replace(CRASH, was_hung=True), Cause.HANG, False),
        (NEVER_READY, Cause.LOAD_FAILURE, False),
        (replace(NEVER_READY, was_hung=True), Cause.LOAD_FAILURE, False),
        (replace(NEVER_READY, exit_code=ExitCode.CONFIG), Cause.BAD_CONFIG, True),
        (replace(NEVER_READY, exit_code=ExitCode.DATA), Cause.LOAD_FAILURE, True),
        (replace(NEVER_READY, exit_code=ExitCode.OUT_OF_MEMORY), Cause.OUT_OF_MEMORY, True),
        (replace(NEVER_READY, was_out_of_memory=True), Cause.OUT_OF_MEMORY, True),
        (MEMORY, Cause.OUT_OF_MEMORY, False),
        (replace(CRASH, was_out_of_memory=True), Cause.OUT_OF_MEMORY, False),
    ],
)
def test_each_end_has_a_cause_and_a_remedy(ending: Ending, cause: Cause, stays_empty: bool) -> None:
    verdict = judge(ending, Record(), LIMITS, 0.5)
    assert verdict.failure is not None
    assert verdict.failure.cause is cause
    assert verdict.failure.remedy
    assert (verdict.delay_s is None) == stays_empty
    assert bool(verdict.reason) == stays_empty


def after(ending: Ending, count: int) -> Record:
    return Record(count, failure_of(ending))


def test_the_wait_doubles_with_each_failure_then_the_slot_stays_empty() -> None:
    delays = [judge(CRASH, after(CRASH, count), LIMITS, 0.5).delay_s for count in range(4)]
    assert delays == [1.0, 2.0, 4.0, None]


@given(st.floats(0, 1), st.integers(0, 2))
def test_the_wait_is_spread_by_a_tenth_either_way(chance: float, failures: int) -> None:
    delay_s = judge(CRASH, after(CRASH, failures), LIMITS, chance).delay_s
    assert delay_s is not None
    assert 0.9 * 2**failures <= delay_s <= 1.1 * 2**failures


@given(st.integers(0, 1000), st.floats(0, 1))
def test_no_wait_is_over_its_cap(failures: int, chance: float) -> None:
    limits = RestartConfig(failures_max=1000)
    delay_s = judge(CRASH, after(CRASH, failures), limits, chance).delay_s
    assert delay_s is None or delay_s <= 1.1 * limits.delay_s_max


def test_failures_are_forgotten_after_good_service() -> None:
    assert judge(LONG_SERVICE, after(CRASH, 3), LIMITS, 0.5).failures == 1
    short = replace(CRASH, ready_for_s=299.0)
    assert judge(short, after(CRASH, 3), LIMITS, 0.5).failures == 4


def test_a_worker_that_was_asked_to_end_has_not_failed() -> None:
    verdict = judge(replace(CRASH, was_asked=True), after(CRASH, 2), LIMITS, 0.5)
    assert (verdict.failures, verdict.delay_s, verdict.failure) == (0, 0.0, None)


def test_memory_that_ran_out_in_service_is_tried_once() -> None:
    assert judge(MEMORY, Record(), LIMITS, 0.5).delay_s == 1.0
    assert judge(MEMORY, after(CRASH, 1), LIMITS, 0.5).delay_s == 2.0
    assert judge(MEMORY, after(MEMORY, 1), LIMITS, 0.5).delay_s is None
    later = replace(MEMORY, ready_for_s=300.0)
    assert judge(later, after(MEMORY, 1), LIMITS, 0.5).delay_s == 1.0


def test_memory_that_a_request_has_used_up_is_not_held_against_its_slot() -> None:
    breaker = Breaker()
    assert breaker.ended(replace(MEMORY, pardons=1), LIMITS, 0.5).delay_s == 1.0  # the culprit
    assert breaker.ended(MEMORY, LIMITS, 0.5).delay_s == 1.0  # another one, not known yet
    late = breaker.ended(replace(MEMORY, pardons=1), LIMITS, 0.5)  # a third; the second was found
    assert (late.failures, late.delay_s) == (1, 1.0)
    assert breaker.ended(MEMORY, LIMITS, 0.5).reason == "memory ran out again after a restart"


def test_a_failure_that_a_request_is_to_blame_for_is_not_counted() -> None:
    breaker = Breaker()
    for _ in range(100):
        verdict = breaker.ended(replace(CRASH, pardons=1), LIMITS, 0.5)
        assert (verdict.failures, verdict.delay_s) == (0, 1.0)
    assert breaker.state(None) is BreakerState.CLOSED


def test_a_pardon_counts_for_failures_before_it_too() -> None:
    breaker = Breaker()
    assert [breaker.ended(CRASH, LIMITS, 0.5).delay_s for _ in range(2)] == [1.0, 2.0]
    verdict = breaker.ended(replace(CRASH, pardons=2), LIMITS, 0.5)
    assert (verdict.failures, verdict.delay_s) == (1, 1.0)
    verdict = breaker.ended(replace(CRASH, pardons=9), LIMITS, 0.5)
    assert (verdict.failures, verdict.delay_s) == (0, 1.0)


def test_memory_that_a_request_took_is_no_second_time_beside_other_failures() -> None:
    breaker = Breaker()
    assert [breaker.ended(CRASH, LIMITS, 0.5).delay_s for _ in range(2)] == [1.0, 2.0]
    assert breaker.ended(MEMORY, LIMITS, 0.5).delay_s == 4.0
    verdict = breaker.ended(replace(MEMORY, pardons=2), LIMITS, 0.5)
    assert (verdict.failures, verdict.delay_s) == (2, 2.0)


def test_a_pardon_closes_the_breaker_again_where_what_is_left_would_not_have_opened_it() -> None:
    breaker = Breaker()
    for _ in range(6):
        verdict = breaker.ended(CRASH, LIMITS, 0.5)
    assert verdict.delay_s is None
    assert breaker.pardoned(1, 0.5) is None
    assert (breaker.failures, breaker.reason) == (5, "5 failures in a row")
    assert breaker.pardoned(2, 0.5) == 4.0
    assert (breaker.failures, breaker.state(None)) == (3, BreakerState.CLOSED)
    assert breaker.pardoned(9, 0.5) == 1.0


def test_a_trial_that_a_request_ended_is_no_failed_trial() -> None:
    breaker = opened(COOLING)
    breaker.begin_trial()
    assert breaker.ended(replace(CRASH, pardons=1), COOLING, 0.5).delay_s == 1.0
    assert breaker.state(None) is BreakerState.HALF_OPEN


def opened(limits: RestartConfig, ending: Ending = CRASH) -> Breaker:
    breaker = Breaker()
    while breaker.ended(ending, limits, 0.5).delay_s is not None:
        pass
    return breaker


def test_an_open_breaker_waits_for_an_operator() -> None:
    breaker = opened(LIMITS)
    assert breaker.state(None) is BreakerState.OPEN
    assert (breaker.trial_after_s, breaker.reason) == (None, "4 failures in a row")
    breaker.reset()
    assert (breaker.state(None), breaker.failures) == (BreakerState.CLOSED, 0)


COOLING = RestartConfig(cooldown_s=60)


def test_after_the_cool_down_one_trial_decides() -> None:
    breaker = opened(COOLING)
    assert breaker.trial_after_s == 60
    breaker.begin_trial()
    assert breaker.state(10.0) is BreakerState.HALF_OPEN
    assert breaker.ended(CRASH, COOLING, 0.5).delay_s is None
    assert breaker.state(None) is BreakerState.OPEN
    breaker.begin_trial()
    assert breaker.state(300.0) is BreakerState.CLOSED
    assert breaker.ended(LONG_SERVICE, COOLING, 0.5).delay_s == 1.0
    assert breaker.state(None) is BreakerState.CLOSED


def test_failures_that_good_service_has_made_forgotten_are_not_shown() -> None:
    breaker = Breaker()
    breaker.ended(CRASH, COOLING, 0.5)
    assert [breaker.failures_left(each) for each in (None, 0.0, 299.9, 300.0)] == [1, 1, 1, 0]
    assert breaker.ended(replace(CRASH, ready_for_s=299.9), COOLING, 0.5).failures == 2
    assert breaker.ended(replace(CRASH, ready_for_s=300.0), COOLING, 0.5).failures == 1


def test_a_bad_configuration_is_not_tried_again_by_itself() -> None:
    breaker = opened(COOLING, replace(NEVER_READY, exit_code=ExitCode.CONFIG))
    assert breaker.trial_after_s is None


ENDINGS = st.builds(
    Ending,
    st.booleans(), st.none() | st.integers(0, 255), st.none() | st.floats(0, 1000),
    st.booleans(), st.booleans(), st.integers(0, 2),
)  # fmt: skip


@given(st.lists(ENDINGS, max_size=30), st.integers(1, 5), st.floats(0, 1))
def test_a_breaker_lets_no_more_through_in_a_row_than_it_may(
    endings: list[Ending], failures_max: int, chance: float
) -> None:
    limits = RestartConfig(failures_max=failures_max)
    breaker, in_a_row = Breaker(), 0
    for ending in endings:
        if breaker.state(None) is BreakerState.OPEN:
            breaker.reset()
            in_a_row = 0
        verdict = breaker.ended(ending, limits, chance)
        if ending.was_asked or (ending.ready_for_s or 0) >= limits.forget_after_s:
            in_a_row = 0
        if not ending.was_asked:
            in_a_row = max(0, in_a_row + 1 - ending.pardons)
        assert in_a_row <= failures_max or verdict.delay_s is None
        assert (breaker.state(None) is BreakerState.OPEN) == (verdict.delay_s is None)
        assert isinstance(breaker.failure, Failure) or breaker.failures == 0
