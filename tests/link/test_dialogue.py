"""Both ends of the worker protocol, tested as a pair: who may say what when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.ask import Ask
from rbee.config import ModelConfig
from rbee.dialogue import Stage, SupervisorDialogue, WorkerDialogue
from rbee.errors import ErrorCode, LocalProtocolError, RemoteProtocolError
from rbee.wire import (
    Beat,
    Bye,
    Cancel,
    Delta,
    Drain,
    Failed,
    FromWorker,
    Generate,
    Hello,
    Loading,
    Phase,
    Ready,
    Step,
    Stop,
    Welcome,
    encode,
)

SECRET = b"s" * 32
ASK = Ask(model="m", prompt="hi")
WELCOME = Welcome(ModelConfig(ref="synthetic"), "", 1, 5.0)
READY = Ready("synthetic", "none", 4096, 8, (), 0, {})


class Pair:
    """A supervisor's and a worker's end, joined without a socket."""

    def __init__(self) -> None:
        self.supervisor = SupervisorDialogue(SECRET, 42)
        self.worker = WorkerDialogue()

    def say(self, message: FromWorker) -> FromWorker | None:
        return self.supervisor.receive(self.worker.send(message))

    def open(self, request_id: int, resume_ids: tuple[int, ...] = ()) -> None:
        frames = self.supervisor.generate(request_id, ASK, 1000, "cid", resume_ids)
        assert isinstance(self.worker.receive(frames), Generate)


@pytest.fixture
def pair() -> Pair:
    """A pair that has come as far as Ready."""
    pair = Pair()
    pair.say(Hello(SECRET, 42, "0.1.0"))
    pair.worker.receive(pair.supervisor.welcome(WELCOME))
    pair.say(Loading(Phase.LOADING, 0.5))
    pair.say(READY)
    return pair


def step(*deltas: Delta) -> Step:
    return Step(1, deltas)


def test_a_pair_gets_from_hello_to_serving(pair: Pair) -> None:
    assert pair.supervisor.stage is pair.worker.stage is Stage.SERVING


def test_hello_with_a_wrong_secret_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="wrong secret"):
        SupervisorDialogue(SECRET, 42).receive(encode(Hello(b"x" * 32, 42, "0")))


def test_hello_from_another_process_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="pid 43"):
        SupervisorDialogue(SECRET, 42).receive(encode(Hello(SECRET, 43, "0")))


@pytest.mark.parametrize(
    "message",
    [Loading(Phase.LOADING, 0), READY, step(), Beat(Phase.IDLE, 0, 0, {}, 0, 0, 0), Bye("x", 0)],
    ids=lambda m: type(m).__name__,
)
def test_nothing_may_be_said_before_hello(message: FromWorker) -> None:
    with pytest.raises(RemoteProtocolError, match="stranger"):
        SupervisorDialogue(SECRET, 42).receive(encode(message))
    with pytest.raises(LocalProtocolError):
        WorkerDialogue().send(message)


def test_hello_may_not_be_said_twice(pair: Pair) -> None:
    with pytest.raises(RemoteProtocolError):
        pair.supervisor.receive(encode(Hello(SECRET, 42, "0")))


def test_a_request_is_open_until_its_last_delta(pair: Pair) -> None:
    pair.open(1)
    pair.say(step(Delta(1, 0, (5,), "a")))
    assert pair.supervisor.open_requests == 1
    pair.say(step(Delta(1, 1, (6,), "b", "stop")))
    assert pair.supervisor.open_requests == 0
    assert not pair.worker.is_open(1)


@pytest.mark.parametrize("index", [0, 2], ids=["repeated", "skipped"])
def test_a_token_out_of_turn_is_refused(pair: Pair, index: int) -> None:
    pair.open(1)
    pair.say(step(Delta(1, 0, (5,), "a")))
    with pytest.raises(RemoteProtocolError, match="out of turn"):
        pair.supervisor.receive(encode(step(Delta(1, index, (6,), "b"))))


def test_a_delta_after_the_last_is_refused(pair: Pair) -> None:
    pair.open(1)
    pair.say(step(Delta(1, 0, (), "", "stop")))
    with pytest.raises(RemoteProtocolError, match="not open"):
        pair.supervisor.receive(encode(step(Delta(1, 0, (5,), "a"))))


def test_two_last_deltas_in_one_step_are_refused(pair: Pair) -> None:
    pair.open(1)
    twice = step(Delta(1, 0, (), "", "stop"), Delta(1, 0, (), "", "stop"))
    with pytest.raises(RemoteProtocolError):
        pair.supervisor.receive(encode(twice))


def test_what_comes_late_for_a_cancelled_request_is_left_out_of_the_step(pair: Pair) -> None:
    pair.open(1)
    pair.open(2)
    pair.supervisor.cancel(1)
    got = pair.say(step(Delta(1, 0, (5,), "a"), Delta(2, 0, (5,), "b")))
    assert got == step(Delta(2, 0, (5,), "b"))
    assert pair.supervisor.open_requests == 2


def test_a_cancelled_request_takes_room_until_the_worker_confirms(pair: Pair) -> None:
    pair.open(1)
    frames = pair.supervisor.cancel(1)
    assert frames is not None
    assert pair.worker.receive(frames) == Cancel(1)
    assert pair.supervisor.open_requests == 1
    assert pair.say(Failed(1, ErrorCode.CANCELLED, "cancelled")) is None
    assert pair.supervisor.open_requests == 0


def test_a_cancel_that_crosses_the_last_delta_is_no_error(pair: Pair) -> None:
    pair.open(1)
    last = pair.worker.send(step(Delta(1, 0, (), "", "stop")))
    frames = pair.supervisor.cancel(1)
    assert frames is not None
    assert pair.supervisor.receive(last) == step()
    assert pair.worker.receive(frames) == Cancel(1)
    assert pair.supervisor.open_requests == 0


def test_a_request_is_cancelled_once(pair: Pair) -> None:
    pair.open(1)
    assert pair.supervisor.cancel(1) is not None
    assert pair.supervisor.cancel(1) is None
    assert pair.supervisor.cancel(2) is None


def test_a_resumed_request_counts_on_from_what_was_delivered(pair: Pair) -> None:
    pair.open(1, (5, 6))
    pair.say(step(Delta(1, 2, (7,), "c")))
    with pytest.raises(RemoteProtocolError, match="out of turn"):
        pair.supervisor.receive(encode(step(Delta(1, 0, (5,), "a"))))


def test_no_request_is_sent_after_drain_or_stop(pair: Pair) -> None:
    assert pair.worker.receive(pair.supervisor.drain()) == Drain()
    with pytest.raises(LocalProtocolError):
        pair.supervisor.generate(1, ASK, 1000, "cid")
    assert pair.worker.receive(pair.supervisor.stop()) == Stop()
    with pytest.raises(RemoteProtocolError, match="after Drain"):
        pair.worker.receive(encode(Generate(1, ASK, 1000, "cid")))


def test_a_beat_may_cross_a_bye(pair: Pair) -> None:
    pair.say(Bye("drained", 0))
    pair.say(Beat(Phase.DRAINING, 0, 0, {}, 0, 0, 0))
    with pytest.raises(RemoteProtocolError):
        pair.supervisor.receive(encode(Bye("again", 0)))


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 3), st.booleans()), max_size=20))
def test_any_order_of_deltas_gives_a_step_or_a_protocol_error(
    deltas: list[tuple[int, int, bool]],
) -> None:
    pair = Pair()
    pair.say(Hello(SECRET, 42, "0"))
    pair.worker.receive(pair.supervisor.welcome(WELCOME))
    pair.say(READY)
    pair.open(1)
    pair.open(2)
    pair.supervisor.cancel(2)
    for request_id, index, is_last in deltas:
        delta = Delta(request_id, index, (1,), "x", "stop" if is_last else None)
        try:
            got = pair.supervisor.receive(encode(step(delta)))
        except RemoteProtocolError:
            return
        assert isinstance(got, Step)
        assert all(each.request_id == 1 for each in got.deltas)
