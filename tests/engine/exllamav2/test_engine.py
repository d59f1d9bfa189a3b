"""The adapter over a generator: the fake one everywhere, the real one where it can be built."""

import json
import math
import random
from typing import Any

import numpy as np
import pytest

from rbee.engine.engine import Feature, JobFailed, Sampled
from rbee.engine.exllamav2 import answer as answer_file
from rbee.errors import EngineError, ErrorCode, ExitCode, RequestError
from rbee.wire import Phase
from tests.engine.exllamav2.conftest import Driver, ids_of
from tests.engine.exllamav2.folder import CONTEXT, END, TURN_END, VOCABULARY

NO_END = {END: -100.0, TURN_END: -100.0}


@pytest.fixture
def loaded(driver: Driver) -> Any:
    driver.load()
    return driver


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


def test_a_long_prompt_is_read_in_chunks_while_others_go_on(loaded: Driver) -> None:
    loaded.job(1, "short", 60, logit_bias=NO_END)
    loaded.engine.step()
    assert loaded.phase() is Phase.DECODE
    loaded.job(2, "x" * 3900, 2, logit_bias=NO_END)
    assert loaded.phase() is Phase.PREFILL
    first = loaded.engine.step()
    assert [each.job_id for each in first] == [1]
    assert loaded.phase() is Phase.PREFILL
    second = loaded.engine.step()
    assert {each.job_id for each in second} == {1, 2}
    assert loaded.phase() is Phase.DECODE


def test_many_prompts_at_once_do_not_make_one_long_step(loaded: Driver) -> None:
    prefilled = []
    generator = loaded.engine._loaded.generator
    iterate = generator.iterate

    def counted() -> Any:
        results = iterate()
        prefilled.append(sum(1 for each in results if each["stage"] == "started"))
        return results

    generator.iterate = counted
    for i in range(10):
        loaded.job(i, f"{i}" + "y" * 1000, 2, logit_bias=NO_END)
    assert len(loaded.run()) == 10
    assert max(prefilled) <= 2  # 2048 tokens of prompts in a step


def test_phase_says_what_the_next_step_does(loaded: Driver) -> None:
    assert loaded.phase() is Phase.IDLE
    assert loaded.engine.step() == []
    loaded.job(1, "hello", 2, logit_bias=NO_END)
    assert loaded.phase() is Phase.PREFILL
    loaded.engine.step()
    assert loaded.phase() is Phase.DECODE
    loaded.engine.step()
    assert loaded.phase() is Phase.IDLE


def test_a_cancelled_job_is_forgotten_wherever_it_stands_and_its_pages_are_free(
    driver: Driver,
) -> None:
    driver.load(cache_tokens=CONTEXT, batch_size=2)
    free = free_pages(driver)
    driver.job(1, "decoding", 500, logit_bias=NO_END)
    driver.engine.step()
    driver.job(2, "z" * 3000, 10)  # does not fit beside the first
    driver.job(3, "waiting", 10)
    driver.engine.step()
    for job_id in (2, 1, 3, 77):
        driver.engine.cancel(job_id)
    assert driver.phase() is Phase.IDLE
    assert driver.engine.step() == []
    assert free_pages(driver) == free
    assert len(driver.answer("afterwards", 5, logit_bias=NO_END)[0]) == 5


def free_pages(driver: Driver) -> Any:
    generator = driver.engine._loaded.generator
    unreferenced = getattr(generator, "unreferenced_pages", None)
    return generator.free_pages if unreferenced is None else len(unreferenced)


def test_jobs_that_do_not_fit_together_take_turns_in_order(driver: Driver) -> None:
    driver.load(cache_tokens=1024, batch_size=8)
    assert driver.info.context_length == 1024
    for i in range(5):
        driver.job(i, "q" * 500, 300, logit_bias=NO_END)
    finished = []
    while driver.phase() is not Phase.IDLE:
        finished += [each.job_id for each in driver.engine.step() if each.finish]
    assert finished == [0, 1, 2, 3, 4]


def test_a_request_without_a_limit_does_not_reserve_the_whole_cache(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_file, "LEASE_TOKENS", 64)
    driver.load(cache_tokens=CONTEXT, batch_size=4)
    prompt = driver.engine.tokenizer.encode("endless", special=False, bos=True)
    for i in range(4):
        driver.job(i, prompt, CONTEXT - len(prompt), logit_bias=NO_END)
    at_once = driver.engine.step()
    assert {each.job_id for each in at_once} == {0, 1, 2, 3}


def test_an_answer_over_several_leases_is_the_same_and_loses_no_token(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.load(cache_tokens=CONTEXT, batch_size=4)
    how: dict[str, Any] = {
        "temperature": 1.1, "seed": 9, "logit_bias": NO_END, "frequency_penalty": 0.5,
        "logprobs": 1,
    }  # fmt: skip
    driver.job(1, "once upon", 300, **how)
    whole = driver.run()[1]
    monkeypatch.setattr(answer_file, "LEASE_TOKENS", 50)
    for job_id in (2, 3):
        driver.job(job_id, "once upon", 300, **how)
    parts = driver.run()
    assert ids_of(parts[2]) == ids_of(parts[3]) == ids_of(whole)
    assert sum(len(each.logprobs) for each in parts[2]) == 300


def test_an_answer_whose_pages_were_taken_between_two_leases_goes_on(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_file, "LEASE_TOKENS", 40)
    driver.load(cache_tokens=1024, batch_size=4)
    prompts = ["k" * (150 + 40 * i) for i in range(4)]
    alone = [driver.answer(prompt, 200, logit_bias=NO_END) for prompt in prompts]
    for i, prompt in enumerate(prompts):
        driver.job(i, prompt, 200, logit_bias=NO_END)
    together = driver.run()
    assert [ids_of(together[i]) for i in range(4)] == alone


@pytest.mark.parametrize("seed", range(3))
def test_random_traffic_loses_no_answer_and_no_page(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(answer_file, "LEASE_TOKENS", 30)
    driver.load(cache_tokens=1536, batch_size=5)
    draw = random.Random(seed)
    shared = "The bees all begin with the same long words. " * 8
    asked = {
        job_id: (shared[: draw.choice([0, 100, 255, 256, 257, 350])] + f"{draw.random()}",
                 draw.randrange(1, 120))
        for job_id in range(30)
    }  # fmt: skip
    waiting = [*asked]
    open_ids: set[int] = set()
    cancelled: set[int] = set()
    got: dict[int, Any] = {}
    for _ in range(5_000):
        if waiting and draw.random() < 0.3:
            job_id = waiting.pop()
            driver.job(job_id, *asked[job_id], logit_bias=NO_END)
            open_ids.add(job_id)
        if open_ids and draw.random() < 0.02:
            job_id = draw.choice(sorted(open_ids))
            driver.engine.cancel(job_id)
            open_ids.discard(job_id)
            cancelled.add(job_id)
        for result in driver.engine.step():
            assert result.job_id in open_ids
            got.setdefault(result.job_id, []).append(result)
            if result.finish:
                open_ids.discard(result.job_id)
        if not waiting and not open_ids:
            break
    assert driver.phase() is Phase.IDLE
    assert free_pages(driver) == 1536 // 256
    for job_id in asked.keys() - cancelled:
        assert ids_of(got[job_id]) == driver.answer(*asked[job_id], logit_bias=NO_END)


def test_a_cancel_between_two_leases_ends_the_job(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_file, "LEASE_TOKENS", 2)
    driver.load()
    driver.job(1, "hello", 10, logit_bias=NO_END)
    driver.engine.step()
    driver.engine.step()
    driver.engine.cancel(1)
    assert driver.phase() is Phase.IDLE


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


class FailingGrammar:
    """Lets three tokens pass."""

    def __init__(self, fails_in: str) -> None:
        self.fails_in, self.left = fails_in, 3

    def _count(self, where: Any) -> Any:
        if where == self.fails_in:
            self.left -= 1
            if self.left == 0:
                raise RequestError(ErrorCode.INTERNAL_ERROR, "the grammar is lost")

    is_finished = False

    def mask(self) -> Any:
        self._count("mask")
        return np.arange(VOCABULARY) == ord("a")

    def advance(self, token_id: int) -> Any:
        self._count("advance")


class Grammars:
    def __init__(self, grammar: Any) -> None:
        self.grammar = grammar

    def json_schema(self, schema: Any, token_ids: Any = ()) -> Any:
        return self.grammar


@pytest.mark.parametrize("fails_in", ["mask", "advance"])
def test_a_grammar_that_fails_fails_its_own_job_alone(loaded: Driver, fails_in: str) -> None:
    loaded.engine._grammars = Grammars(FailingGrammar(fails_in))
    loaded.job(1, "hello", 10, json_schema="{}")
    loaded.job(2, "hello", 10, logit_bias=NO_END)
    loaded.job(3, "hello you", 10, logit_bias=NO_END)
    by_job = loaded.run()
    assert isinstance(by_job[1][-1], JobFailed)
    assert by_job[1][-1].error.message == "the grammar is lost"
    assert set(ids_of(by_job[1][:-1])[0]) == {ord("a")}
    assert len(ids_of(by_job[2])[0]) == len(ids_of(by_job[3])[0]) == 10


@pytest.mark.parametrize("jobs", [1, 5])
def test_a_grammar_holds_over_leases_and_beside_other_jobs(
    loaded: Driver, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    monkeypatch.setattr(answer_file, "LEASE_TOKENS", 4)
    word = b"abcdefghij"

    class Alphabet:
        at = 0

        is_finished = False

        def mask(self) -> Any:
            allowed = np.zeros(VOCABULARY, dtype=np.bool_)
            allowed[word[self.at] if self.at < len(word) else END] = True
            return allowed

        def advance(self, token_id: int) -> Any:
            assert token_id == word[self.at]
            self.at += 1

    for job_id in range(jobs):
        loaded.engine._grammars = Grammars(Alphabet())
        loaded.job(job_id, f"spell {job_id}", 50, temperature=1.0, json_schema="{}")
    by_job = loaded.run()
    assert [ids_of(by_job[i]) for i in range(jobs)] == [([*word], "stop")] * jobs


SCHEMA = json.dumps({
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 5}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
})  # fmt: skip


# The models of the stands draw at random: they would fill an answer with white space.
TERSE = {**dict.fromkeys(b" \t\r\n", -100.0), ord("}"): 3.0}


def text_of(ids: Any) -> Any:
    return bytes(ids).decode()


@pytest.mark.parametrize("jobs", [1, 4])
def test_an_answer_by_a_schema_matches_it(loaded: Driver, jobs: int) -> None:
    for job_id in range(jobs):
        loaded.job(job_id, "who?", 400, temperature=1.0, seed=job_id, json_schema=SCHEMA,
                   logit_bias=TERSE)  # fmt: skip
    for results in loaded.run().values():
        ids, finish = ids_of(results)
        value = json.loads(text_of(ids))
        assert set(value) == {"name", "age"}
        assert isinstance(value["age"], int)
        assert finish == "stop"


def test_a_resumed_answer_by_a_schema_goes_on_inside_of_it(loaded: Driver) -> None:
    prompt = [*b"who?"]
    begun = [*b'{"name":"ann","a']
    ids, finish = loaded.answer(
        prompt + begun, 400, json_schema=SCHEMA, resumed=len(begun), logit_bias={ord("}"): 50.0}
    )
    assert json.loads(text_of(begun + ids))["name"] == "ann"
    assert finish == "stop"


def test_a_schema_that_cannot_be_followed_is_refused_and_nothing_is_taken(loaded: Driver) -> None:
    with pytest.raises(RequestError) as caught:
        loaded.job(1, "who?", 5, json_schema="no schema")
    assert caught.value.param == "response_format"
    assert loaded.phase() is Phase.IDLE


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
