"""The pure rules: lifecycle, placement, backlog, bind."""

import itertools
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.ask import Ask, Message
from rbee.errors import ConfigError
from rbee.supervisor.backlog import (
    SAMPLES_MIN,
    Backlog,
    Bound,
    Rates,
    estimate_tokens,
    retry_after_s,
)
from rbee.supervisor.bind import Bind, check_bind, parse_bind
from rbee.supervisor.lifecycle import (
    TRANSITIONS,
    IllegalMove,
    WorkerEvent,
    WorkerState,
    next_state,
)
from rbee.supervisor.placement import choose


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
    bound = Bound(3, 1000)
    backlog = Backlog(bound)
    for request_id, model in ((1, "a"), (2, "b"), (3, "a")):
        assert bound.has_room(1, 0)
        backlog.add(model, request_id)
    assert not bound.has_room(1, 0)
    assert (backlog.count("a"), backlog.count("b"), backlog.count("c")) == (2, 1, 0)
    assert backlog.waiting("a") == [1, 3]
    backlog.add_first("a", 0)
    assert backlog.first("a") == 0
    assert bound.requests == 4


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 5), st.booleans())))
def test_the_bound_counts_what_waits(moves: list[tuple[str, int, bool]]) -> None:
    bound = Bound(100, 100)
    backlog, held = Backlog(bound), set()
    for model, request_id, is_added in moves:
        if is_added and (model, request_id) not in held:
            backlog.add(model, request_id, request_id)
            held.add((model, request_id))
        elif not is_added:
            assert backlog.remove(model, request_id) == ((model, request_id) in held)
            held.discard((model, request_id))
    assert bound.requests == len(held)
    tokens = sum(request_id for _, request_id in held)
    assert bound.has_room(1, 100 - tokens)
    assert bound.has_room(1, 101 - tokens) == (not held)


def test_a_wait_is_known_of_a_model_once_enough_was_answered() -> None:
    rates = Rates()
    for _ in range(SAMPLES_MIN):
        assert rates.wait_s("a", 1, 1) is None
        rates.note("a", 4.0)
    assert rates.wait_s("a", 10, 4) == pytest.approx(10)
    assert rates.wait_s("a", 10, 0) is None
    assert rates.wait_s("b", 1, 1) is None
    for _ in range(100):
        rates.note("a", 8.0)
    assert rates.wait_s("a", 1, 1) == pytest.approx(8, rel=0.01)


@pytest.mark.parametrize(("wait_s", "told_s"), [(None, 1), (0.2, 1), (9.5, 10), (1e6, 3600)])
def test_retry_after_is_the_wait_within_bounds(wait_s: float | None, told_s: float) -> None:
    assert retry_after_s(wait_s) == told_s


def test_the_tokens_of_a_request_are_estimated_from_all_that_it_has() -> None:
    assert estimate_tokens(Ask(model="m", prompt="abcdef", tokens_max=5)) == 7
    assert estimate_tokens(Ask(model="m", prompt_ids=(1, 2, 3))) == 3
    messages = (Message(role="user", content="abc"), Message(role="user", content="abcd"))
    assert estimate_tokens(Ask(model="m", messages=messages)) == 2


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
    check_bind(bind, has_credentials=False, has_tls=False, allow_plaintext=False)


@pytest.mark.parametrize("text", ["", "7233", ":7233", "::1:7233", "h:", "h:x", "h:65536", "h:-1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"server\.bind"):
        parse_bind(text)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "box.example", "8.8.8.8"])
def test_an_address_that_others_reach_is_refused_without_keys(host: str) -> None:
    for has_tls, allow_plaintext in itertools.product((False, True), repeat=2):
        with pytest.raises(ConfigError, match=r"no API key is there.*rbee keys create"):
            check_bind(
                Bind(host, 7233),
                has_credentials=False, has_tls=has_tls, allow_plaintext=allow_plaintext,
            )  # fmt: skip


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "box.example"])
def test_an_address_that_others_reach_wants_tls_or_a_word_of_the_operator(host: str) -> None:
    bind = Bind(host, 7233)
    with pytest.raises(ConfigError, match=r"there is no TLS.*allow_plaintext"):
        check_bind(bind, has_credentials=True, has_tls=False, allow_plaintext=False)
    check_bind(bind, has_credentials=True, has_tls=True, allow_plaintext=False)
    check_bind(bind, has_credentials=True, has_tls=False, allow_plaintext=True)
