"""The pure rules: lifecycle, restart, liveness, placement, backlog, bind."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.config import RestartConfig
from rbee.errors import ConfigError, ExitCode
from rbee.supervisor.backlog import Backlog, Rates
from rbee.supervisor.bind import Bind, check_bind, parse_bind
from rbee.supervisor.lifecycle import (
    TRANSITIONS,
    IllegalMove,
    WorkerEvent,
    WorkerState,
    next_state,
)
from rbee.supervisor.placement import choose
from rbee.supervisor.restart import Ending, judge

LIMITS = RestartConfig()
CRASH = Ending(was_asked=False, exit_code=None, ready_for_s=10.0)


@pytest.mark.parametrize("state", WorkerState)
@pytest.mark.parametrize("event", WorkerEvent)
def test_only_the_moves_of_the_table_can_be_made(state: WorkerState, event: WorkerEvent) -> None:
    if event in TRANSITIONS[state]:
        assert next_state(state, event) is TRANSITIONS[state][event]
    else:
        with pytest.raises(IllegalMove, match=f"{state.name} has no move for {event.name}"):
            next_state(state, event)


def test_each_state_but_gone_can_end() -> None:
    for state in WorkerState:
        assert (WorkerEvent.EXIT in TRANSITIONS[state]) == (state is not WorkerState.GONE)


def test_each_state_can_be_reached_from_starting() -> None:
    reached = {WorkerState.STARTING}
    while True:
        more = {after for state in reached for after in TRANSITIONS[state].values()} - reached
        if not more:
            break
        reached |= more
    assert reached == set(WorkerState)


def test_the_wait_doubles_with_each_failure_then_the_slot_stays_empty() -> None:
    failures, delays = 0, []
    while True:
        verdict = judge(CRASH, failures, LIMITS, chance=0.5)
        failures = verdict.failures
        delays.append(verdict.delay_s)
        if verdict.delay_s is None:
            break
    assert delays == [1.0, 2.0, 4.0, None]


@given(st.floats(0, 1), st.integers(0, 2))
def test_the_wait_is_spread_by_a_tenth_either_way(chance: float, failures: int) -> None:
    delay_s = judge(CRASH, failures, LIMITS, chance).delay_s
    assert delay_s is not None
    assert 0.9 * 2**failures <= delay_s <= 1.1 * 2**failures


def test_failures_are_forgotten_after_good_service() -> None:
    long = Ending(was_asked=False, exit_code=1, ready_for_s=300.0)
    assert judge(long, 3, LIMITS, 0.5).failures == 1
    short = Ending(was_asked=False, exit_code=1, ready_for_s=299.0)
    assert judge(short, 3, LIMITS, 0.5).failures == 4


def test_a_worker_that_was_asked_to_end_has_not_failed() -> None:
    verdict = judge(Ending(was_asked=True, exit_code=0, ready_for_s=1.0), 2, LIMITS, 0.5)
    assert (verdict.failures, verdict.delay_s) == (0, 0.0)


@pytest.mark.parametrize("code", [ExitCode.CONFIG, ExitCode.DATA, ExitCode.OUT_OF_MEMORY])
def test_what_a_restart_cannot_help_is_not_tried_again(code: ExitCode) -> None:
    verdict = judge(Ending(was_asked=False, exit_code=code, ready_for_s=None), 0, LIMITS, 0.5)
    assert verdict.delay_s is None
    assert verdict.reason


def test_memory_that_ran_out_in_service_is_tried_again() -> None:
    ending = Ending(was_asked=False, exit_code=ExitCode.OUT_OF_MEMORY, ready_for_s=5.0)
    assert judge(ending, 0, LIMITS, 0.5).delay_s == 1.0


@dataclass
class Stand:
    takes_requests: bool
    open_requests: int


def test_the_free_worker_with_the_fewest_requests_is_chosen() -> None:
    full, busy, calm = Stand(False, 0), Stand(True, 5), Stand(True, 2)
    assert choose([full, busy, calm]) is calm
    assert choose([full]) is None
    assert choose([]) is None


def test_the_backlog_is_first_come_first_served_within_a_model() -> None:
    backlog = Backlog(3)
    for request_id, model in ((1, "a"), (2, "b"), (3, "a")):
        backlog.add(model, request_id)
    assert backlog.is_full
    assert backlog.waiting("a") == [1, 3]
    backlog.add_first("a", 0)
    assert backlog.first("a") == 0
    assert len(backlog) == 4


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 5), st.booleans())))
def test_the_backlog_counts_what_it_holds(moves: list[tuple[str, int, bool]]) -> None:
    backlog, held = Backlog(100), set()
    for model, request_id, is_added in moves:
        if is_added and (model, request_id) not in held:
            backlog.add(model, request_id)
            held.add((model, request_id))
        elif not is_added:
            assert backlog.remove(model, request_id) == ((model, request_id) in held)
            held.discard((model, request_id))
    assert len(backlog) == len(held)


def test_retry_after_follows_the_measured_service_time_within_bounds() -> None:
    rates = Rates()
    assert rates.retry_after_s(10, 1) == 1
    rates.note(4.0)
    assert rates.retry_after_s(10, 4) == 10
    assert rates.retry_after_s(1000, 1) == 60
    assert rates.retry_after_s(0, 8) == 1


@pytest.mark.parametrize(
    ("text", "bind"),
    [
        ("127.0.0.1:7233", Bind("127.0.0.1", 7233)),
        ("[::1]:0", Bind("::1", 0)),
        ("localhost:80", Bind("localhost", 80)),
    ],
)
def test_a_loopback_address_is_read_and_allowed(text: str, bind: Bind) -> None:
    assert parse_bind(text) == bind
    check_bind(bind)


@pytest.mark.parametrize("text", ["", "7233", ":7233", "::1:7233", "h:", "h:x", "h:65536", "h:-1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"server\.bind"):
        parse_bind(text)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "box.example", "8.8.8.8"])
def test_an_address_that_others_reach_is_refused_without_keys(host: str) -> None:
    with pytest.raises(ConfigError, match="no API key"):
        check_bind(Bind(host, 7233))
