"""Steps that are quicker than a message, put together: what may wait, and what comes of it."""

from rbee.ask import Ask, FinishReason
from rbee.engine.engine import Job, JobFailed, Sampled
from rbee.engine.quick_steps import (
    STEPS_TOGETHER_MAX,
    TOGETHER_S_MAX,
    Results,
    fits_another,
    join,
    may_rest,
)
from rbee.engine.requests import Running, start, take
from rbee.errors import ErrorCode, RequestError
from rbee.wire import Generate

FAILED = JobFailed(2, RequestError(ErrorCode.ENGINE_FAILED, "broken"))


def sampled(job_id: int, *token_ids: int, finish: FinishReason | None = None) -> Sampled:
    return Sampled(job_id, token_ids, tuple(b"%d " % each for each in token_ids), (), finish)


def running(request_id: int, *stop: str, has_told_prompt: bool = True) -> Running:
    ask = Ask(model="m", prompt="x", tokens_max=9, stop=stop)
    job = Job(request_id, (1, 2), 9, ask.sampling)
    made = start(Generate(request_id, ask, 10_000, "cid"), job, 0.0, [])
    made.has_told_prompt = has_told_prompt
    return made


def test_quick_steps_are_put_together_up_to_a_time_and_a_number() -> None:
    assert fits_another(1, TOGETHER_S_MAX / 2)
    assert not fits_another(1, TOGETHER_S_MAX * 0.51)
    assert fits_another(3, TOGETHER_S_MAX * 3 / 4)
    assert not fits_another(STEPS_TOGETHER_MAX, 0.0)


def test_plain_tokens_for_all_may_rest() -> None:
    requests = {1: running(1), 2: running(2)}
    assert may_rest([sampled(1, 5), sampled(2, 6)], requests)
    assert not may_rest([sampled(1, 5)], requests), "the other one reads its prompt"
    assert not may_rest([], requests)


def test_first_token_last_word_and_failure_leave_at_once() -> None:
    assert not may_rest([sampled(1, 5)], {1: running(1, has_told_prompt=False)})
    assert not may_rest([sampled(1, 5, finish="stop")], {1: running(1)})
    assert not may_rest([sampled(1, 5), FAILED], {1: running(1), 2: running(2)})
    assert not may_rest([sampled(3, 5)], {1: running(1)}), "it has ended already"


def test_steps_become_one_result_a_job_in_order_and_failures_come_last() -> None:
    steps: list[Results] = [
        [sampled(1, 10), sampled(2, 20)],
        [FAILED, sampled(1, 11, finish="length")],
    ]
    assert join(steps) == [sampled(1, 10, 11, finish="length"), sampled(2, 20), FAILED]


def test_one_step_is_left_as_it_is() -> None:
    step: Results = [sampled(1, 10), FAILED]
    assert join([step]) is step


def test_a_stop_string_in_the_midst_of_a_result_drops_what_is_behind_it() -> None:
    delta = take(running(1, "11"), sampled(1, 10, 11, 12))
    assert delta is not None
    assert (delta.text, delta.token_ids, delta.finish) == ("10 ", (10, 11), "stop")
