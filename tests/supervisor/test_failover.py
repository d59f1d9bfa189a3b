"""How far an answer has come, and which ending of a worker a request may have caused."""

import pytest

from rbee.errors import ExitCode
from rbee.supervisor.failover import Course, may_be_a_requests_doing
from rbee.wire import Delta


def delta(index: int, *token_ids: int, prompt_tokens: int = 0) -> Delta:
    return Delta(1, index, token_ids, "x", None, prompt_tokens)


def test_the_next_worker_is_told_what_was_delivered_and_the_client_nothing_twice() -> None:
    course = Course()
    assert course.send() == ()
    first = delta(0, 7, 8, prompt_tokens=3)
    assert course.take(first) is first
    assert course.interrupt(1)
    assert course.send() == (7, 8)
    assert (course.tokens, course.tokens_here) == (2, 0)
    assert course.take(delta(2, 2**32 - 1, prompt_tokens=3)) == delta(2, 2**32 - 1)
    assert (course.tokens, course.tokens_here) == (3, 1)


def test_an_answer_is_given_up_after_failovers_in_a_row_without_a_token() -> None:
    course = Course()
    course.send()
    assert [course.interrupt(2) for _ in range(3)] == [True, True, False]
    assert course.failovers == 2


def test_a_token_begins_the_count_anew() -> None:
    course = Course()
    for index in range(5):
        course.send()
        course.take(delta(index, 1))
        assert course.interrupt(1)
    course.send()
    assert not course.interrupt(1)
    assert course.failovers == 5


def test_no_failover_means_none() -> None:
    assert not Course().interrupt(0)


@pytest.mark.parametrize(
    ("was_asked", "fault", "exit_code", "signal", "expected"),
    [
        (False, "", None, 11, True),
        (False, "", None, 6, True),
        (False, "", 81, None, True),
        (False, "", 1, None, True),
        (False, "", 0, None, True),  # nobody asked it to end
        (False, "hung: no beat for 10.2 s", None, 9, True),
        (False, "broke the protocol: x", None, 9, True),
        (True, "hung: no beat for 10.2 s", None, 9, True),
        (True, "", None, 11, True),
        (False, "", None, 9, False),
        (False, "", None, 15, False),
        (True, "", None, 9, False),
        (True, "", 0, None, False),
        (False, "", ExitCode.OS_ERROR, None, False),
    ],
)
def test_what_comes_from_outside_or_on_purpose_is_no_requests_doing(
    was_asked: bool, fault: str, exit_code: int | None, signal: int | None, expected: bool
) -> None:
    found = may_be_a_requests_doing(
        was_asked=was_asked, fault=fault, exit_code=exit_code, signal=signal
    )
    assert found is expected
