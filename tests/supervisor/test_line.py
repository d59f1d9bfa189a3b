"""The line of those who wait: classes, their shares of the turns, and what a place is worth."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.rate_limits import Priority
from rbee.supervisor.line import Line
from tests.supervisor.line_judge import LineJudge

HIGH, NORMAL, LOW = Priority

MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from(Priority)),
        st.tuples(st.just("cancel"), st.integers(0, 50)),
        st.just(("return", 0)),
        st.tuples(st.just("serve"), st.integers(1, 5)),
    ),
    max_size=120,
)


def line_of(*priorities: Priority) -> Line:
    """Ids count from 1."""
    line = Line()
    for request_id, priority in enumerate(priorities, 1):
        line.add(request_id, 0, priority)
    return line


def served(line: Line, turns: int = 10**6) -> list[int]:
    """Who has so many turns, or all that there are."""
    order = []
    while (first := line.first()) is not None and len(order) < turns:
        line.serve(first)
        order.append(first)
    return order


def test_a_higher_class_goes_first_and_in_a_class_who_came_first() -> None:
    assert served(line_of(LOW, NORMAL, NORMAL, HIGH, HIGH)) == [4, 5, 2, 3, 1]


@pytest.mark.parametrize("priority", Priority)
def test_in_a_line_of_one_class_nothing_but_order_counts(priority: Priority) -> None:
    assert served(line_of(*[priority] * 30)) == list(range(1, 31))


def test_one_who_comes_back_goes_before_all_and_costs_no_class_a_turn() -> None:
    line = line_of(HIGH, LOW)
    for request_id in (7, 8):
        line.add_first(request_id, 0)
    assert line.ids() == [8, 7, 1, 2]
    assert served(line) == [8, 7, 1, 2]


def test_under_any_load_each_class_has_its_share() -> None:
    line, ids = Line(), itertools.count(1)
    class_of = {}
    for priority in Priority:
        for request_id in itertools.islice(ids, 1000):
            line.add(request_id, 0, priority)
            class_of[request_id] = priority
    turns = [class_of[request_id] for request_id in served(line, 1000)]
    assert turns.count(LOW) == 100
    assert 200 <= turns.count(NORMAL) <= 250
    assert turns.count(HIGH) >= 650


@given(MOVES)
def test_no_class_waits_for_ever_and_each_keeps_its_order(moves: list[tuple[str, Any]]) -> None:
    line, ids, judge = Line(), itertools.count(1), LineJudge(_must_hold)
    for move, value in [*moves, ("serve", 1000)]:
        if move == "add":
            request_id = next(ids)
            line.add(request_id, 2 * request_id, value)
            judge.came(request_id, value)
        elif move == "return":
            request_id = next(ids)
            line.add_first(request_id, 2 * request_id)
            judge.came_back(request_id)
        elif move == "cancel" and value < len(line):
            request_id = line.ids()[value]
            assert line.remove(request_id) == 2 * request_id
            judge.gave_up(request_id)
        elif move == "serve":
            for request_id in served(line, value):
                judge.was_served(request_id)
        assert sorted(line.ids()) == sorted(judge.ids())
        assert len(line) == len(line.ids())
    assert line.first() is None


def _must_hold(holds: bool, what: str) -> None:
    assert holds, what


@given(st.lists(st.sampled_from(Priority), max_size=60), st.integers(0, 12), st.integers(0, 3))
def test_a_place_is_the_turn_that_comes(before: list[Priority], turns: int, returned: int) -> None:
    for priority in Priority:
        line = line_of(*before)
        served(line, turns)
        for request_id in range(1000, 1000 + returned):
            line.add_first(request_id, 0)
        told = line.place(priority)
        are_alike = set(before) <= {priority}
        line.add(10**6, 0, priority)
        real = served(line).index(10**6) + 1
        assert abs(told - real) <= (0 if are_alike else 3), (told, real)
