"""The worker protocol's messages: what goes in comes out, and nothing else gets in."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.ask import Ask, Message, Sampling, TokenLogprob
from rbee.config import ModelConfig
from rbee.errors import ErrorCode, RemoteProtocolError
from rbee.wire import (
    BODY_BYTES_MAX,
    VERSION,
    Beat,
    Bye,
    Cancel,
    Delta,
    Drain,
    Failed,
    FromSupervisor,
    FromWorker,
    Generate,
    Hello,
    Loading,
    Phase,
    Ready,
    Step,
    Stop,
    Welcome,
    decode_from_supervisor,
    decode_from_worker,
    encode,
)

FROM_SUPERVISOR: list[FromSupervisor] = [
    Welcome(ModelConfig(ref="bee-tiny"), "/models/bee.gguf", 2, 5.0),
    Generate(
        1,
        Ask(
            model="m",
            messages=(Message(role="user", content="hi"),),
            sampling=Sampling(temperature=0.0, seed=2**63 - 1, logit_bias={5: -100.0}),
            stop=("\n",),
        ),
        1000,
        "abc",
        (1, 2),
        b"salt",
    ),
    Cancel(7),
    Drain(),
    Stop(),
]
FROM_WORKER: list[FromWorker] = [
    Hello(b"secret", 42, "0.1.0"),
    Loading(Phase.LOADING, 0.5),
    Ready("synthetic", "none", 4096, 8, ("chat",), 0, {"attention": "none"}),
    Step(3, (Delta(1, 0, (5,), "x", None, 9, (TokenLogprob(5, b"x", -0.1, ((5, b"x", -0.1),)),)),)),
    Failed(1, ErrorCode.DEADLINE_EXCEEDED, "late"),
    Beat(Phase.DECODE, 10, 20, {1: 20}, 1.5, 1000, 0),
    Bye("drained", 0),
]


@pytest.mark.parametrize("message", FROM_SUPERVISOR, ids=lambda m: type(m).__name__)
def test_what_the_supervisor_says_arrives_as_it_was_said(message: FromSupervisor) -> None:
    assert decode_from_supervisor(encode(message)) == message


@pytest.mark.parametrize("message", FROM_WORKER, ids=lambda m: type(m).__name__)
def test_what_a_worker_says_arrives_as_it_was_said(message: FromWorker) -> None:
    assert decode_from_worker(encode(message)) == message


def test_each_message_of_the_protocol_has_an_example_here() -> None:
    assert {type(m) for m in FROM_SUPERVISOR} == set(FromSupervisor.__args__)
    assert {type(m) for m in FROM_WORKER} == set(FromWorker.__args__)


@pytest.mark.parametrize("message", FROM_WORKER, ids=lambda m: type(m).__name__)
def test_a_worker_message_is_no_supervisor_message(message: FromWorker) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_from_supervisor(encode(message))


@given(st.lists(st.binary(max_size=64), max_size=4))
def test_any_frames_give_a_message_or_a_protocol_error(frames: list[bytes]) -> None:
    for decode in (decode_from_worker, decode_from_supervisor):
        try:
            decode(frames)
        except RemoteProtocolError:
            continue


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
        max_leaves=8,
    )
)
def test_any_msgpack_gives_a_message_or_a_protocol_error(body: object) -> None:
    frames = [VERSION, msgspec.msgpack.encode(body)]
    for decode in (decode_from_worker, decode_from_supervisor):
        try:
            decode(frames)
        except RemoteProtocolError:
            continue


def test_deep_nesting_is_a_protocol_error() -> None:
    with pytest.raises(RemoteProtocolError):
        decode_from_worker([VERSION, b"\x91" * 100_000 + b"\xc0"])


def test_an_extension_type_is_a_protocol_error() -> None:
    body = b"\x81\xa4type\xc7\x03\x01abc"
    with pytest.raises(RemoteProtocolError):
        decode_from_worker([VERSION, body])


def test_an_oversized_body_is_refused_before_it_is_read() -> None:
    with pytest.raises(RemoteProtocolError, match="is over"):
        decode_from_worker([VERSION, bytes(BODY_BYTES_MAX + 1)])


def test_another_version_is_refused_and_named() -> None:
    with pytest.raises(RemoteProtocolError, match="rbee/2"):
        decode_from_worker([b"rbee/2", encode(Bye("x", 0))[1]])
