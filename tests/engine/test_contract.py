"""What every engine promises to a worker, whatever generates in it."""

from pathlib import Path

import pytest

from rbee.ask import Sampling
from rbee.engine.engine import Engine, Feature, LoadSpec
from rbee.errors import ErrorCode, RequestError
from rbee.wire import Phase
from tests.engine.conftest import Contender
from tests.engine.driving import Driven

PROMPTS = ("the cat", "one two three", "a", "Tell me the time, and why.", "x y z", "0 1 2 3 4 5")
SEEDED = Sampling(temperature=0.9, top_p=0.95, seed=7)


def test_info_says_what_was_loaded(driven: Driven) -> None:
    info = driven.info
    assert info.engine
    assert info.device
    assert info.context_length == 256
    assert info.batch_size == 4
    assert info.vram_bytes >= 0


def test_loading_tells_its_progress_in_order(driven: Driven) -> None:
    phases = [phase for phase, _ in driven.progress]
    assert phases[0] in (Phase.IMPORTING, Phase.LOADING)
    order = [Phase.IMPORTING, Phase.LOADING, Phase.WARMING]
    assert phases == sorted(phases, key=order.index)
    assert all(0 <= fraction <= 1 for _, fraction in driven.progress)


def test_chat_feature_means_a_template(driven: Driven) -> None:
    has_template = driven.engine.tokenizer.chat_template is not None
    assert (Feature.CHAT in driven.info.features) == has_template


def test_job_of_n_tokens_gives_n_tokens_and_ends_by_length(driven: Driven) -> None:
    for count in (1, 2, 17):
        answer = driven.answer("the cat", count)
        assert len(answer.token_ids) == len(answer.pieces) == count
        assert answer.finish == "length"
        assert answer.logprobs == []


def test_prompt_and_answer_may_fill_the_context_to_the_last_token(driven: Driven) -> None:
    prompt = driven.encode("fill it")
    answer = driven.answer(prompt, driven.info.context_length - len(prompt))
    assert len(prompt) + len(answer.token_ids) == driven.info.context_length
    assert answer.finish == "length"


def test_pieces_are_those_of_the_tokenizer(driven: Driven) -> None:
    answer = driven.answer("one two", 12)
    assert answer.pieces == [driven.engine.tokenizer.piece(i) for i in answer.token_ids]


def test_jobs_side_by_side_get_what_they_get_alone(driven: Driven) -> None:
    alone = [driven.answer(prompt, 20).token_ids for prompt in PROMPTS]
    together = driven.finish(*(driven.start(prompt, 20) for prompt in PROMPTS))
    assert [answer.token_ids for answer in together] == alone


def test_job_that_joins_late_changes_nothing(driven: Driven) -> None:
    alone = [driven.answer(prompt, 20, SEEDED).token_ids for prompt in PROMPTS[:2]]
    first = driven.start(PROMPTS[0], 20, SEEDED)
    driven.step_until_token(first, 5)
    second = driven.start(PROMPTS[1], 20, SEEDED)
    assert [a.token_ids for a in driven.finish(first, second)] == alone


def test_jobs_over_the_batch_size_wait_for_a_place(driven: Driven) -> None:
    size = driven.info.batch_size
    job_ids = [driven.start(prompt, 10) for prompt in PROMPTS[: size + 1]]
    driven.finish(*job_ids[:size])
    ended = driven.steps
    (late,) = driven.finish(job_ids[size])
    assert late.first_step >= ended
    assert len(late.token_ids) == 10


def test_cancelled_running_job_gets_nothing_more_and_others_go_on(driven: Driven) -> None:
    alone = driven.answer("one two three", 20).token_ids
    gone = driven.start("the cat", 100)
    stays = driven.start("one two three", 20)
    driven.step_until_token(gone, 3)
    driven.cancel(gone)
    had = len(driven.answers[gone].token_ids)
    (answer,) = driven.finish(stays)
    assert answer.token_ids == alone
    assert len(driven.answers[gone].token_ids) == had


def test_cancelled_queued_job_never_starts(driven: Driven) -> None:
    running = [driven.start(prompt, 10) for prompt in PROMPTS[: driven.info.batch_size]]
    queued = driven.start("never", 10)
    driven.step_until_token(running[0])
    driven.cancel(queued)
    driven.finish(*running)
    assert driven.engine.phase is Phase.IDLE
    assert driven.answers[queued].token_ids == []


def test_cancelling_an_unknown_job_is_ignored(driven: Driven) -> None:
    driven.cancel(987_654_321)
    assert driven.engine.phase is Phase.IDLE


def test_places_of_cancelled_jobs_are_used_again(driven: Driven) -> None:
    for _ in range(3):
        jobs = [driven.start(prompt, 50) for prompt in PROMPTS[: driven.info.batch_size]]
        driven.step_until_token(jobs[-1])
        for job_id in jobs:
            driven.cancel(job_id)
    assert len(driven.answer("the cat", 5).token_ids) == 5


def test_phase_follows_the_work(driven: Driven) -> None:
    phases = [driven.engine.phase]
    job_id = driven.start("the cat", 5)
    phases.append(driven.engine.phase)
    driven.step_until_token(job_id)
    phases.append(driven.engine.phase)
    driven.finish(job_id)
    phases.append(driven.engine.phase)
    assert phases == [Phase.IDLE, Phase.PREFILL, Phase.DECODE, Phase.IDLE]


def test_step_without_jobs_gives_nothing(driven: Driven) -> None:
    assert driven.engine.step() == []


@pytest.mark.parametrize(
    "sampling",
    [Sampling(temperature=0), SEEDED, Sampling(seed=3, frequency_penalty=1, presence_penalty=0.5)],
    ids=["greedy", "seeded", "penalties"],
)
def test_resumed_job_goes_on_as_if_undisturbed(driven: Driven, sampling: Sampling) -> None:
    prompt = driven.encode("once upon")
    whole = driven.answer(prompt, 24, sampling).token_ids
    for had in (1, 9, 23):
        rest = driven.answer((*prompt, *whole[:had]), 24 - had, sampling, resumed=had)
        assert rest.token_ids == whole[had:]
        assert rest.finish == "length"


def test_same_seed_gives_the_same_answer(driven: Driven) -> None:
    first, second = (driven.answer("the cat", 20, SEEDED).token_ids for _ in range(2))
    assert first == second


def test_logprobs_come_one_per_token(driven: Driven) -> None:
    if Feature.LOGPROBS not in driven.info.features:
        pytest.skip("this engine has no logprobs")
    answer = driven.answer("the cat", 6, Sampling(temperature=0, logprobs=3))
    assert [entry.token_id for entry in answer.logprobs] == answer.token_ids
    assert [entry.piece for entry in answer.logprobs] == answer.pieces
    for entry in answer.logprobs:
        likely = [logprob for _, _, logprob in entry.top]
        assert len(likely) == 3
        assert likely == sorted(likely, reverse=True)
        assert entry.logprob == likely[0] <= 0


def test_zero_logprobs_mean_the_chosen_token_alone(driven: Driven) -> None:
    if Feature.LOGPROBS not in driven.info.features:
        pytest.skip("this engine has no logprobs")
    answer = driven.answer("the cat", 3, Sampling(temperature=0, logprobs=0))
    assert [entry.top for entry in answer.logprobs] == [(), (), ()]


def test_feature_that_is_missing_is_refused_and_nothing_is_taken(driven: Driven) -> None:
    wanted = {
        Feature.LOGPROBS: (Sampling(logprobs=1), None),
        Feature.LOGIT_BIAS: (Sampling(logit_bias={1: 1.0}), None),
        Feature.JSON_SCHEMA: (Sampling(), '{"type":"object"}'),
    }
    for feature, (sampling, schema) in wanted.items():
        if feature not in driven.info.features:
            with pytest.raises(RequestError) as refusal:
                driven.start("the cat", 4, sampling, json_schema=schema)
            assert refusal.value.code is ErrorCode.UNSUPPORTED_PARAMETER
    assert driven.engine.phase is Phase.IDLE


def test_token_ids_outside_the_vocabulary_are_refused(driven: Driven) -> None:
    size = driven.engine.tokenizer.vocabulary_size
    for bad in (-1, size, 2**31):
        with pytest.raises(RequestError) as refusal:
            driven.start((1, bad, 2), 4)
        assert refusal.value.code is ErrorCode.INVALID_REQUEST
    assert driven.engine.phase is Phase.IDLE


@pytest.mark.parametrize(
    "text",
    [
        "plain words",
        "Grüße, naïve café",
        "日本語のテキスト",
        "😀👩‍👩‍👧‍👦",
        "tabs\tand\nlines\r\n",
        " ",
    ],
)
def test_tokenizer_gives_back_what_it_took(driven: Driven, text: str) -> None:
    tokenizer = driven.engine.tokenizer
    ids = tokenizer.encode(text, special=False, bos=False)
    assert b"".join(tokenizer.piece(i) for i in ids).decode().strip(" ") == text.strip(" ")
    assert all(0 <= i < tokenizer.vocabulary_size for i in ids)


def test_text_of_special_tokens_stays_text_unless_asked_for(driven: Driven) -> None:
    tokenizer = driven.engine.tokenizer
    if not tokenizer.eos_token:
        pytest.skip("this engine's model has no special tokens")
    (special,) = tokenizer.encode(tokenizer.eos_token, special=True, bos=False)
    assert tokenizer.piece(special) == b""
    plain = tokenizer.encode(tokenizer.eos_token, special=False, bos=False)
    assert special not in plain
    assert b"".join(tokenizer.piece(i) for i in plain).decode() == tokenizer.eos_token


def test_each_step_reads_something_until_it_brings_a_token(driven: Driven) -> None:
    job_id = driven.start("the cat sat on the mat " * 8, 2)
    answer = driven.answers[job_id]
    while not answer.token_ids:
        read_tokens = driven.engine.read_tokens
        driven.step()
        assert driven.engine.read_tokens > read_tokens or answer.token_ids
    read_tokens = driven.engine.read_tokens
    driven.step()
    assert driven.engine.read_tokens == read_tokens, "a token of an answer is not read"


def test_close_is_safe_before_load_after_a_failed_load_and_twice(
    contender: Contender, tmp_path: Path
) -> None:
    engine, spec = contender(tmp_path)
    engine.close()

    def failing(phase: Phase, fraction: float) -> None:
        raise _LoadStoppedError

    with pytest.raises(_LoadStoppedError):
        engine.load(spec, failing)
    engine.close()
    engine.close()


def test_close_with_open_jobs_is_safe(contender: Contender, tmp_path: Path) -> None:
    engine, spec = contender(tmp_path)
    driven = Driven(engine, spec)
    job_id = driven.start("the cat", 50)
    driven.step_until_token(job_id)
    driven.start("waits", 50)
    engine.close()
    engine.close()


def test_engine_can_load_again_after_close(contender: Contender, tmp_path: Path) -> None:
    engine, spec = contender(tmp_path)
    first = _greedy(engine, spec)
    engine.close()
    again, _ = contender(tmp_path)
    assert _greedy(again, spec) == first
    again.close()


def _greedy(engine: Engine, spec: LoadSpec) -> list[int]:
    return Driven(engine, spec).answer("the cat", 8).token_ids


class _LoadStoppedError(Exception):
    """Raised by a progress callback, as the worker does when it is told to stop."""
