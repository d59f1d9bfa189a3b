"""From an ask to a job and from sampled tokens to deltas, the same for all engines."""

import pytest

from rbee.ask import Ask, Message, Sampling
from rbee.engine.engine import EngineInfo, Feature, Sampled
from rbee.engine.requests import Admission, Running, start, take
from rbee.engine.synthetic_tokens import SyntheticTokenizer
from rbee.errors import ErrorCode, RequestError
from rbee.wire import Generate

INFO = EngineInfo("synthetic", "none", 64, 8, frozenset({Feature.LOGPROBS, Feature.CHAT}))


@pytest.fixture
def admission() -> Admission:
    return Admission(INFO, SyntheticTokenizer())


def generate(ask: Ask, resume_ids: tuple[int, ...] = (), cache_salt: bytes = b"") -> Generate:
    return Generate(1, ask, 1000, "cid", resume_ids, cache_salt)


def running(ask: Ask, admission: Admission, resume_ids: tuple[int, ...] = ()) -> Running:
    message = generate(ask, resume_ids)
    return start(message, admission.job(message), 10.0, admission.pieces(resume_ids))


def test_a_prompt_becomes_a_job_that_fills_the_context(admission: Admission) -> None:
    job = admission.job(generate(Ask(model="m", prompt="abcd")))
    assert job.prompt_ids == tuple(b"abcd")
    assert job.tokens_max == 60


def test_a_job_has_its_clients_salt_unless_all_share_what_is_kept(admission: Admission) -> None:
    message = generate(Ask(model="m", prompt="abcd"), cache_salt=b"mine")
    assert admission.job(message).cache_salt == b"mine"
    shared = Admission(INFO, SyntheticTokenizer(), is_cache_shared=True)
    assert shared.job(message).cache_salt == b""


def test_messages_are_rendered_by_the_models_template(admission: Admission) -> None:
    ask = Ask(model="m", messages=(Message(role="user", content="hi"),), tokens_max=2)
    text = bytes(i for i in admission.job(generate(ask)).prompt_ids if i < 256)
    assert b"user: hi" in text


@pytest.mark.parametrize(
    ("ask", "code", "param"),
    [
        (Ask(model="m", prompt="a" * 64), ErrorCode.CONTEXT_LENGTH_EXCEEDED, "prompt"),
        (
            Ask(model="m", prompt="abcd", tokens_max=61),
            ErrorCode.CONTEXT_LENGTH_EXCEEDED,
            "prompt",
        ),
        (Ask(model="m", prompt=""), ErrorCode.INVALID_REQUEST, "prompt"),
        (Ask(model="m", prompt_ids=(2**40,)), ErrorCode.INVALID_REQUEST, "prompt"),
        (Ask(model="m", prompt_ids=(-1,)), ErrorCode.INVALID_REQUEST, "prompt"),
        (
            Ask(model="m", prompt="a", sampling=Sampling(logit_bias={1: 1.0})),
            ErrorCode.UNSUPPORTED_PARAMETER,
            "logit_bias",
        ),
        (
            Ask(model="m", prompt="a", json_schema="{}"),
            ErrorCode.UNSUPPORTED_PARAMETER,
            "response_format",
        ),
    ],
    ids=["too long", "too much", "empty", "unknown token", "negative token", "bias", "schema"],
)
def test_what_the_model_cannot_do_is_refused_by_name(
    admission: Admission, ask: Ask, code: ErrorCode, param: str
) -> None:
    with pytest.raises(RequestError) as refused:
        admission.job(generate(ask))
    assert (refused.value.code, refused.value.param) == (code, param)


def test_a_prompt_that_just_fits_is_taken(admission: Admission) -> None:
    assert admission.job(generate(Ask(model="m", prompt="a" * 63))).tokens_max == 1


def test_resumed_tokens_are_prompt_for_the_engine_and_answer_for_the_client(
    admission: Admission,
) -> None:
    ask = Ask(model="m", prompt="abcd", tokens_max=10)
    job = admission.job(generate(ask, (1000, 1001)))
    assert job.prompt_ids == (*b"abcd", 1000, 1001)
    assert (job.tokens_max, job.resumed) == (8, 2)
    delta = take(running(ask, admission, (1000, 1001)), Sampled(1, (1002,), (b"2 ",)))
    assert delta is not None
    assert (delta.index, delta.text, delta.prompt_tokens) == (2, "2 ", 4)


def test_a_stop_string_over_the_seam_of_two_workers_is_seen(admission: Admission) -> None:
    ask = Ask(model="m", prompt="abcd", stop=("1 2",))
    delta = take(running(ask, admission, (1000, 1001)), Sampled(1, (1002,), (b"2 ",)))
    assert delta is not None
    assert (delta.text, delta.finish) == ("", "stop")


def test_prompt_tokens_are_told_once(admission: Admission) -> None:
    request = running(Ask(model="m", prompt="abcd"), admission)
    deltas = [take(request, Sampled(1, (1000 + i,), (b"x",))) for i in range(3)]
    assert [delta.prompt_tokens for delta in deltas if delta] == [4, 0, 0]
    assert [delta.index for delta in deltas if delta] == [0, 1, 2]


def test_tokens_behind_a_stop_string_are_dropped(admission: Admission) -> None:
    request = running(Ask(model="m", prompt="abcd", stop=("b",)), admission)
    delta = take(request, Sampled(1, (97, 98, 99), (b"a", b"b", b"c"), (), "length"))
    assert delta is not None
    assert (delta.text, delta.token_ids, delta.finish) == ("a", (97, 98), "stop")


def test_half_a_character_at_the_end_comes_out_as_a_replacement(admission: Admission) -> None:
    request = running(Ask(model="m", prompt="abcd"), admission)
    delta = take(request, Sampled(1, (0xC3,), (b"\xc3",), (), "length"))
    assert delta is not None
    assert (delta.text, delta.finish) == ("�", "length")


def test_a_stop_string_that_the_last_half_character_completes_is_a_stop(
    admission: Admission,
) -> None:
    request = running(Ask(model="m", prompt="abcd", stop=("a�",)), admission)
    delta = take(request, Sampled(1, (97, 0xC3), (b"a", b"\xc3"), (), "length"))
    assert delta is not None
    assert (delta.text, delta.finish) == ("", "stop")


def test_a_step_that_brought_nothing_says_nothing(admission: Admission) -> None:
    assert take(running(Ask(model="m", prompt="abcd"), admission), Sampled(1, (), ())) is None
