"""When keys are asked for again: the times are decided without a clock."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.supervisor.access.jwt.freshness import ASKED_EVERY_S_MIN, Freshness


def fresh() -> Freshness:
    return Freshness(refresh_s=300, stale_s=1_000, now_s=50)


def test_they_are_asked_for_at_once_and_then_each_refresh_s() -> None:
    freshness = fresh()
    assert freshness.due_s == 50
    freshness.begin(50)
    freshness.succeed(51)
    assert freshness.due_s == 351


def test_a_failure_is_tried_again_after_a_time_that_doubles_up_to_a_minute() -> None:
    freshness = fresh()
    delays = []
    for _ in range(9):
        freshness.fail(100)
        delays.append(freshness.due_s - 100)
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    freshness.succeed(200)
    freshness.fail(300)
    assert freshness.due_s == 301


def test_the_last_keys_hold_for_a_bounded_time() -> None:
    freshness = fresh()
    assert not freshness.holds(50)
    freshness.succeed(100)
    freshness.fail(400)
    assert freshness.holds(1_400)
    assert not freshness.holds(1_400.1)


@given(st.lists(st.floats(0, 20), max_size=60))
def test_whoever_comes_with_unknown_keys_is_heeded_at_most_each_interval(gaps: list[float]) -> None:
    freshness = fresh()
    asked = []
    for now_s in itertools.accumulate(gaps, initial=100.0):
        if freshness.may_ask_again(now_s):
            freshness.begin(now_s)
            asked.append(now_s)
    assert asked
    assert all(b - a >= ASKED_EVERY_S_MIN for a, b in itertools.pairwise(asked))


@pytest.mark.parametrize("refresh_s", [2, 10])
def test_what_is_asked_often_is_not_asked_less_often_after_a_failure(refresh_s: float) -> None:
    freshness = Freshness(refresh_s, 0, 0)
    for _ in range(20):
        freshness.fail(0)
    assert freshness.due_s <= refresh_s
