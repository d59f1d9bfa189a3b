"""The adapter over a generator: the fake one everywhere, the real one where it can be built."""

import math
from typing import Any

import pytest

from rbee.engine.engine import Feature, Sampled
from rbee.errors import EngineError, ErrorCode, ExitCode, RequestError
from rbee.wire import Phase
from tests.engine.exllamav2.conftest import Driver, ids_of
from tests.engine.exllamav2.folder import CONTEXT, END, TURN_END, VOCABULARY

NO_END = {END: -100.0, TURN_END: -100.0}


def test_load_tells_what_was_loaded(driver: Driver) -> None:
    info = driver.load(context_length=1024, batch_size=8, cache_bits=16)
    assert (info.engine, info.device) == ("exllamav2", "cuda:0 NVIDIA H200")
    assert (info.context_length, info.batch_size) == (1024, 8)
    assert info.features == set(Feature)
    assert info.vram_bytes == 3 << 30
    assert info.detail["cache"] == "FP16 8192 tokens"
    assert info.detail["exllamav2"] == "0.3.2"
    assert info.detail["attention"]


def test_load_goes_through_its_phases_and_each_grows(driver: Driver) -> None:
    driver.load()
    phases = list(dict.fromkeys(phase for phase, _ in driver.told))
    assert phases == [Phase.IMPORTING, Phase.LOADING, Phase.WARMING]
    for phase in phases:
        fractions = [fraction for each, fraction in driver.told if each is phase]
        assert fractions == sorted(fractions)
        assert fractions[-1] <= 1


def test_an_exception_out_of_progress_ends_the_load_and_comes_through(driver: Driver) -> None:
    class StopAsked(Exception):
        pass

    def progress(phase: Any, fraction: Any) -> Any:
        if phase is Phase.LOADING and fraction > 0:
            raise StopAsked

    with pytest.raises(StopAsked):
        driver.engine.load(driver.spec(), progress)


def test_an_answer_has_as_many_tokens_as_asked_for_and_ends_by_length(loaded: Driver) -> None:
    loaded.job(1, "hello", 9, logit_bias=NO_END)
    results = loaded.run()[1]
    ids, finish = ids_of(results)
    assert len(ids) == 9
    assert finish == "length"
    assert [each.finish for each in results[:-1]] == [None] * (len(results) - 1)


def test_pieces_are_the_bytes_of_the_tokens(loaded: Driver) -> None:
    loaded.job(1, "hello", 30, temperature=1.0, seed=3, logit_bias=NO_END)
    for result in loaded.run()[1]:
        assert [bytes([i]) if i < 256 else loaded.engine.tokenizer.piece(i)
                for i in result.token_ids] == list(result.pieces)  # fmt: skip


@pytest.mark.parametrize("end_id", [END, TURN_END])
def test_every_end_token_of_the_files_ends_an_answer_and_is_not_in_it(
    loaded: Driver, end_id: int
) -> None:
    assert loaded.answer("hello", 20, logit_bias={end_id: 100.0}) == ([], "stop")


def test_an_end_token_as_the_last_allowed_one_is_a_stop(loaded: Driver) -> None:
    assert loaded.answer("hello", 1, logit_bias={END: 100.0}) == ([], "stop")


def test_a_step_brings_a_token_of_half_a_character_at_once(loaded: Driver) -> None:
    half = 0xE2  # begins a character of three bytes
    loaded.job(1, "hello", 6, logit_bias={half: 100.0})
    per_step = []
    while loaded.phase() is not Phase.IDLE:
        per_step += [tuple(each.token_ids) for each in loaded.engine.step()]
    assert per_step == [(half,)] * 6


def test_tokens_held_back_before_an_end_token_are_not_lost(loaded: Driver) -> None:
    half = 0xE2
    loaded.job(1, "hello", 60, logit_bias={half: 120.0, END: 100.0}, frequency_penalty=2.0)
    ids, finish = ids_of(loaded.run()[1])
    assert set(ids) == {half}
    assert finish == "stop"


def test_a_greedy_batch_gives_what_each_job_gives_alone(loaded: Driver) -> None:
    prompts = [f"prompt number {i} " * (1 + 7 * i) for i in range(9)]
    alone = [loaded.answer(prompt, 12 + i) for i, prompt in enumerate(prompts)]
    for i, prompt in enumerate(prompts):
        loaded.job(i, prompt, 12 + i)
    together = loaded.run()
    assert [ids_of(together[i]) for i in range(9)] == alone


def test_a_seed_repeats_an_answer_and_another_seed_does_not(loaded: Driver) -> None:
    how: dict[str, Any] = {"temperature": 1.5, "logit_bias": NO_END}
    first, again, other = (loaded.answer("hello", 40, seed=seed, **how) for seed in (11, 11, 12))
    assert first == again
    assert first != other


@pytest.mark.parametrize("cut", [1, 17])
def test_a_resumed_answer_goes_on_as_if_nothing_had_happened(loaded: Driver, cut: int) -> None:
    how: dict[str, Any] = {
        "temperature": 1.2, "seed": 5, "logit_bias": NO_END, "frequency_penalty": 1.5,
        "presence_penalty": 1.0, "repetition_penalty": 1.2, "top_p": 0.9,
    }  # fmt: skip
    prompt = loaded.engine.tokenizer.encode("tell me", special=False, bos=True)
    whole, _ = loaded.answer(prompt, 30, **how)
    rest, finish = loaded.answer([*prompt, *whole[:cut]], 30 - cut, resumed=cut, **how)
    assert (rest, finish) == (whole[cut:], "length")


def test_penalties_of_openai_do_not_count_the_prompt(loaded: Driver) -> None:
    first = loaded.answer("hello", 1, logit_bias=NO_END)[0]
    prompt = [*loaded.engine.tokenizer.encode("hello", special=False, bos=True)]
    padded = first * 50 + prompt  # the likeliest token fills the prompt
    plain = loaded.answer(padded, 1, logit_bias=NO_END)
    penalised = loaded.answer(
        padded, 1, logit_bias=NO_END, frequency_penalty=2.0, presence_penalty=2.0
    )
    assert plain == penalised


def test_a_repetition_penalty_counts_the_prompt(loaded: Driver) -> None:
    prompt = [*range(1, 200)]
    ids, _ = loaded.answer(prompt, 1, repetition_penalty=10.0, logit_bias=NO_END)
    assert ids[0] not in prompt


def test_logprobs_are_of_the_raw_logits_whatever_is_done_to_them(loaded: Driver) -> None:
    loaded.job(1, "hello", 1, logprobs=20)
    plain = loaded.run()[1][0].logprobs[0]
    likeliest = plain.top[0][0]
    loaded.job(
        2, "hello", 1, logprobs=20, temperature=0.3, seed=1, repetition_penalty=3.0,
        presence_penalty=1.0, logit_bias={likeliest: -100.0, **NO_END},
    )  # fmt: skip
    shaped = loaded.run()[2][0].logprobs[0]
    assert shaped.token_id != likeliest
    assert shaped.top == plain.top
    assert plain.token_id == likeliest
    assert plain.logprob == plain.top[0][2]


def test_logprobs_are_sorted_and_sum_to_at_most_one(loaded: Driver) -> None:
    loaded.job(1, "hello", 25, logprobs=5, temperature=1.0, seed=4, logit_bias=NO_END)
    logprobs = [each for result in loaded.run()[1] for each in result.logprobs]
    assert len(logprobs) == 25
    for each in logprobs:
        values = [value for _, _, value in each.top]
        assert values == sorted(values, reverse=True)
        assert len(values) == 5
        assert sum(map(math.exp, values)) <= 1 + 1e-6
        assert all(piece == loaded.engine.tokenizer.piece(i) for i, piece, _ in each.top)
        assert each.logprob <= values[0]


def test_zero_logprobs_name_the_chosen_token_alone(loaded: Driver) -> None:
    loaded.job(1, "hello", 3, logprobs=0, logit_bias=NO_END)
    for result in loaded.run()[1]:
        assert [each.token_id for each in result.logprobs] == list(result.token_ids)
        assert all(each.top == () for each in result.logprobs)


@pytest.mark.parametrize("bad_id", [-1, VOCABULARY, 10**6])
def test_a_token_id_that_the_model_lacks_is_refused_and_nothing_is_taken(
    loaded: Driver, bad_id: int
) -> None:
    with pytest.raises(RequestError) as caught:
        loaded.job(1, [1, bad_id, 2], 5)
    assert (caught.value.code, caught.value.param) == (ErrorCode.INVALID_REQUEST, "prompt")
    if bad_id >= 0:
        with pytest.raises(RequestError, match="logit_bias"):
            loaded.job(1, "hello", 5, logit_bias={bad_id: 1.0})
    assert loaded.phase() is Phase.IDLE


def test_a_job_longer_than_the_context_is_refused(loaded: Driver) -> None:
    with pytest.raises(RequestError) as caught:
        loaded.job(1, "hello", CONTEXT)
    assert caught.value.code is ErrorCode.CONTEXT_LENGTH_EXCEEDED


def test_a_job_that_fills_the_context_to_the_last_token_is_done(driver: Driver) -> None:
    driver.load(context_length=300, cache_tokens=300)
    prompt = [7] * 200
    assert len(driver.answer(prompt, 100, logit_bias=NO_END)[0]) == 100


FAULTS = [
    (RuntimeError("CUDA error: an illegal memory access was encountered"), ExitCode.ENGINE_FATAL),
    (AssertionError("page table"), ExitCode.ENGINE_FATAL),
    (KeyError(3), ExitCode.ENGINE_FATAL),
    (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), ExitCode.OUT_OF_MEMORY),
    (MemoryError(), ExitCode.OUT_OF_MEMORY),
]


@pytest.mark.parametrize(("fault", "exit_code"), FAULTS)
def test_whatever_the_library_raises_in_a_step_ends_the_process_with_its_code(
    loaded: Driver, fault: Any, exit_code: ExitCode
) -> None:
    def broken() -> Any:
        raise fault

    loaded.job(1, "hello", 5)
    loaded.engine._loaded.generator.iterate = broken
    with pytest.raises(EngineError, match=type(fault).__name__) as caught:
        loaded.engine.step()
    assert caught.value.exit_code is exit_code
    loaded.engine._library.torch.cuda.empty_cache = broken  # CUDA stays broken
    loaded.engine.close()


def test_torchs_own_out_of_memory_error_is_known_by_its_class(loaded: Driver) -> None:
    error = loaded.engine._library.torch.OutOfMemoryError

    def broken() -> Any:
        raise error("of another wording")

    loaded.job(1, "hello", 5)
    loaded.engine._loaded.generator.iterate = broken
    with pytest.raises(EngineError) as caught:
        loaded.engine.step()
    assert caught.value.exit_code is ExitCode.OUT_OF_MEMORY


def test_close_is_safe_twice_and_before_load(driver: Driver) -> None:
    driver.engine.close()
    driver.load()
    driver.job(1, "hello", 5)
    driver.engine.step()
    driver.engine.close()
    driver.engine.close()


def test_steps_give_sampled_for_jobs_in_the_batch_only(loaded: Driver) -> None:
    for i in range(70):  # more than the batch of 64
        loaded.job(i, f"job {i}", 3, logit_bias=NO_END)
    seen = loaded.engine.step()
    assert all(isinstance(each, Sampled) for each in seen)
    assert len(seen) == 64
    assert len(loaded.run()) == 70
