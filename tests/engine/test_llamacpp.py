"""The CPU engine beyond the contract: llama.cpp itself, its cache, its faults."""

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rbee
from rbee.ask import Sampling
from rbee.config import ModelConfig
from rbee.engine.engine import Feature, JobFailed, LoadSpec
from rbee.engine.llamacpp import LlamaCppEngine, abi
from rbee.errors import EngineError, ErrorCode, ExitCode, RequestError
from rbee.wire import Phase
from tests.engine.driving import Driven
from tests.engine.tiny_gguf import BOS, END_OF_TURN, EOS, USER, vocabulary, write_tiny_gguf

BEE_TINY = Path(rbee.__file__).parent / "models" / "bee_tiny" / "bee-tiny.gguf"
CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


def load(path: Path, **config: int | None) -> Driven:
    model = ModelConfig(ref=f"file:{path}", engine="llamacpp", **config)  # type: ignore[arg-type]
    return Driven(LlamaCppEngine(), LoadSpec(model, path, threads=2))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf", context_length=1024)


@pytest.fixture(scope="module")
def loaded(path: Path) -> Iterator[Driven]:
    driven = load(path, batch_size=8)
    yield driven
    driven.engine.close()


@pytest.fixture
def driven(loaded: Driven) -> Iterator[Driven]:
    yield loaded
    loaded.cancel_all()


def llamacpp(driven: Driven) -> LlamaCppEngine:
    assert isinstance(driven.engine, LlamaCppEngine)
    return driven.engine


def test_info_is_honest_about_threads_library_and_cache(driven: Driven) -> None:
    info = driven.info
    assert info.features == frozenset(Feature)
    assert info.context_length == 1024
    assert info.detail["library"] == f"xllamacpp {abi.XLLAMACPP_VERSION}"
    assert info.detail["threads"] == "1"  # of two allowed: the model is tiny
    assert info.detail["cache_tokens"] == str(8 * 1024)
    assert int(info.detail["cache_bytes"]) == 8 * 1024 * 2 * 2 * 32 * 2  # layers, k and v, width


def test_context_length_is_the_smaller_of_models_and_configured(path: Path) -> None:
    short = load(path, context_length=100)
    assert short.info.context_length == 100
    assert short.answer("x", 90).finish == "length"
    short.engine.close()
    long = load(path, context_length=5000)
    assert long.info.context_length == 1024
    long.engine.close()


def test_model_without_a_template_cannot_chat(tmp_path: Path) -> None:
    driven = load(write_tiny_gguf(tmp_path / "plain.gguf", template=None))
    assert Feature.CHAT not in driven.info.features
    driven.engine.close()


def test_special_tokens_come_only_from_rendered_templates(driven: Driven) -> None:
    tokenizer = driven.engine.tokenizer
    tokens = vocabulary()
    text = f"{BOS}{USER}the{END_OF_TURN}"
    expected = [tokens.index(token) for token in (BOS, USER, "the", END_OF_TURN)]
    assert tokenizer.encode(text, special=True, bos=False) == expected
    plain = tokenizer.encode(text, special=False, bos=True)
    assert plain[0] == tokens.index(BOS)
    assert not {tokens.index(t) for t in (BOS, EOS, END_OF_TURN, USER)} & set(plain[1:])
    assert (tokenizer.bos_token, tokenizer.eos_token) == (BOS, EOS)


@pytest.mark.parametrize("token", [EOS, END_OF_TURN])
def test_every_end_token_stops_and_is_not_among_the_answers_tokens(
    driven: Driven, token: str
) -> None:
    bias = {vocabulary().index(token): 100.0}
    answer = driven.answer("the", 10, Sampling(temperature=0, logit_bias=bias))
    assert (answer.token_ids, answer.pieces, answer.finish) == ([], [], "stop")


def test_answer_follows_a_schema_and_stops_when_it_is_complete(driven: Driven) -> None:
    schema = '{"type":"array","items":{"enum":["the",7]},"minItems":2,"maxItems":2}'
    seen = set()
    for seed in range(6):
        answer = driven.answer("go", 200, Sampling(seed=seed), json_schema=schema)
        assert answer.finish == "stop"
        items = [item.strip() for item in answer.text.decode().strip("[] \r\n\t").split(",")]
        assert set(items) <= {'"the"', "7"}
        assert len(items) == 2
        seen.add(tuple(items))
    assert len(seen) > 1


def test_resumed_answer_stays_in_its_schema(driven: Driven) -> None:
    schema = '{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}'
    prompt = driven.encode("go")
    sampling = Sampling(seed=4)
    whole = driven.answer(prompt, 60, sampling, json_schema=schema)
    had = 4
    rest = driven.answer(
        (*prompt, *whole.token_ids[:had]), 60 - had, sampling, json_schema=schema, resumed=had
    )
    assert rest.token_ids == whole.token_ids[had:]


def test_bad_schema_takes_nothing(driven: Driven) -> None:
    with pytest.raises(RequestError) as refusal:
        driven.start("go", 5, json_schema='{"type":"nope"}')
    assert refusal.value.param == "response_format"
    assert driven.engine.phase is Phase.IDLE


def test_job_too_long_for_the_context_is_refused(driven: Driven) -> None:
    with pytest.raises(RequestError) as refusal:
        driven.start((1,) * 1000, 25)
    assert refusal.value.code is ErrorCode.CONTEXT_LENGTH_EXCEEDED


def test_long_prompt_is_read_in_chunks_while_others_decode(driven: Driven) -> None:
    random = np.random.default_rng(1)
    long_prompt = tuple(int(i) for i in random.integers(0, 250, 1000))
    alone = driven.answer(long_prompt, 5).token_ids
    llamacpp(driven)._sequences.forget_kept()  # type: ignore[union-attr]
    other = driven.start("short", 60)
    driven.step_until_token(other)
    before = len(driven.answers[other].token_ids)
    late = driven.start(long_prompt, 5)
    assert driven.engine.phase is Phase.PREFILL
    driven.step_until_token(late)
    assert len(driven.answers[other].token_ids) - before >= 2  # one for each chunk
    assert driven.finish(late)[0].token_ids == alone


def test_prefix_that_is_known_is_not_computed_again(
    driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = llamacpp(driven)._model
    assert model is not None
    context, sizes = model.context, list[int]()
    decode = context.decode

    def counting() -> int:
        sizes.append(context._size)
        return decode()

    monkeypatch.setattr(context, "decode", counting)
    prompt = driven.encode("a long beginning that two questions share. " * 5)
    llamacpp(driven)._sequences.forget_kept()  # type: ignore[union-attr]
    first = driven.answer((*prompt, 65), 4)
    assert sizes[0] == len(prompt) + 1
    sizes.clear()
    again = driven.answer((*prompt, 65), 4)
    assert sizes[0] == 2
    assert again.token_ids == first.token_ids
    sizes.clear()
    running = driven.start((*prompt, 66), 30)
    driven.step_until_token(running)
    shared = driven.start((*prompt, 67), 4)
    driven.finish(shared, running)
    assert max(sizes) < 16
    llamacpp(driven)._sequences.forget_kept()  # type: ignore[union-attr]
    assert driven.answer((*prompt, 67), 4).token_ids == driven.answers[shared].token_ids


def test_prompt_is_known_to_its_own_client_alone(driven: Driven) -> None:
    prompt = driven.encode("a long beginning that two clients share. " * 5)

    def read(salt: bytes) -> int:
        before = driven.engine.read_tokens
        text.append(driven.answer(prompt, 4, cache_salt=salt).token_ids)
        return driven.engine.read_tokens - before

    text: list[list[int]] = []
    llamacpp(driven)._sequences.forget_kept()  # type: ignore[union-attr]
    whole = read(b"mine")
    assert whole >= len(prompt) - 1
    assert read(b"mine") <= 2
    assert read(b"another's") == whole
    running = driven.start(prompt, 30, cache_salt=b"mine")
    driven.step_until_token(running)
    assert read(b"a third one's") == whole
    assert read(b"mine") <= 2
    assert read(b"another's") <= 2
    driven.finish(running)
    assert text == [text[0]] * 6


def test_gaps_between_jobs_change_no_answer(driven: Driven) -> None:
    prompts = [f"{i} bottles" for i in range(8)]
    alone = [driven.answer(prompt, 30).token_ids for prompt in prompts]
    jobs = [driven.start(prompt, 30) for prompt in prompts]
    driven.step_until_token(jobs[-1], 3)
    for job_id in (jobs[1], jobs[2], jobs[5]):
        driven.cancel(job_id)
    kept = [0, 3, 4, 6, 7]
    answers = driven.finish(*(jobs[i] for i in kept))
    assert [answer.token_ids for answer in answers] == [alone[i] for i in kept]


def test_batch_is_in_the_order_of_sequences(
    driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = llamacpp(driven)._model
    assert model is not None
    batches: list[list[int]] = []
    begin, add = model.context.begin, model.context.add

    def beginning() -> None:
        batches.append([])
        begin()

    def adding(sequence: int, *rest: Any, **named: Any) -> None:
        batches[-1].append(sequence)
        add(sequence, *rest, **named)

    monkeypatch.setattr(model.context, "begin", beginning)
    monkeypatch.setattr(model.context, "add", adding)
    for length in (3, 9, 5):  # sequences are handed out in another order each time
        driven.finish(*(driven.start("x" * i, length + i % 3) for i in range(1, 9)))
    driven.finish(*(driven.start(f"{i}", 4) for i in range(8)))
    assert all(batch == list(range(batch[0], batch[-1] + 1)) for batch in batches)
    assert max(len(batch) for batch in batches) == 8


def test_hundred_jobs_through_eight_places_all_get_their_own_answer(driven: Driven) -> None:
    prompts = [f"question {i}: " + "why? " * (i % 7) for i in range(100)]
    job_ids = [
        driven.start(prompt, 3 + i % 11, Sampling(seed=i)) for i, prompt in enumerate(prompts)
    ]
    answers = driven.finish(*job_ids)
    for i in (0, 13, 57, 99):
        alone = driven.answer(prompts[i], 3 + i % 11, Sampling(seed=i))
        assert answers[i].token_ids == alone.token_ids
    assert [len(answer.token_ids) for answer in answers] == [3 + i % 11 for i in range(100)]


def test_abort_before_a_step_only_delays_it(driven: Driven) -> None:
    alone = driven.answer("the cat", 10).token_ids
    job_id = driven.start("the cat", 10)
    driven.step_until_token(job_id, 2)
    llamacpp(driven).abort()
    assert driven.engine.step() == []
    assert driven.finish(job_id)[0].token_ids == alone


def test_abort_from_another_thread_cuts_a_running_step_and_loses_nothing(driven: Driven) -> None:
    engine = llamacpp(driven)
    alone = driven.answer("the cat", 400).token_ids
    job_id = driven.start("the cat", 400)
    ended = threading.Event()

    def keep_aborting() -> None:
        while not ended.wait(0.0005):
            engine.abort()

    thread = threading.Thread(target=keep_aborting)
    thread.start()
    try:
        (answer,) = driven.finish(job_id)
    finally:
        ended.set()
        thread.join()
    assert answer.token_ids == alone
    driven.finish(driven.start("x", 1), driven.start("y", 1))  # no abort is left over


def test_cache_without_room_puts_the_youngest_job_back_and_loses_none(
    driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = [driven.answer(prompt, 20).token_ids for prompt in ("one", "two")]
    model = llamacpp(driven)._model
    assert model is not None
    jobs = [driven.start(prompt, 20) for prompt in ("one", "two")]
    driven.step_until_token(jobs[1], 5)
    codes = iter([abi.DECODE_NO_ROOM, abi.DECODE_NO_ROOM])
    decode = model.context.decode
    monkeypatch.setattr(model.context, "decode", lambda: next(codes, None) or decode())
    assert [answer.token_ids for answer in driven.finish(*jobs)] == alone


def test_job_that_is_alone_and_finds_no_room_fails_by_itself(
    driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = llamacpp(driven)._model
    assert model is not None
    job_id = driven.start("one", 20)
    with monkeypatch.context() as patch:
        patch.setattr(model.context, "decode", lambda: abi.DECODE_NO_ROOM)
        results = [result for _ in range(3) for result in driven.engine.step()]
    (failed,) = results
    assert isinstance(failed, JobFailed)
    assert (failed.job_id, failed.error.code) == (job_id, ErrorCode.ENGINE_FAILED)
    assert driven.engine.phase is Phase.IDLE


def test_fatal_code_ends_the_engine(driven: Driven, monkeypatch: pytest.MonkeyPatch) -> None:
    model = llamacpp(driven)._model
    assert model is not None
    driven.start("one", 20)
    with monkeypatch.context() as patch:
        patch.setattr(model.context, "decode", lambda: -3)
        with pytest.raises(EngineError) as failure:
            driven.engine.step()
    assert failure.value.exit_code is ExitCode.ENGINE_FATAL


def test_logits_that_are_no_numbers_fail_the_job_alone(
    driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = llamacpp(driven)._model
    assert model is not None
    jobs = [driven.start(prompt, 5) for prompt in ("one", "two")]
    logits = model.context.logits
    calls = itertools.count()

    def broken() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        rows = logits().copy()
        if next(calls) == 0:  # each prompt has a pass of its own
            rows[0] = np.nan
        return rows

    with monkeypatch.context() as patch:
        patch.setattr(model.context, "logits", broken)
        driven.step()
    failed, sound = sorted(driven.finish(*jobs), key=lambda answer: len(answer.token_ids))
    assert failed.error is not None
    assert failed.error.code is ErrorCode.ENGINE_FAILED
    assert len(sound.token_ids) == 5


def test_shipped_model_answers_the_same_alone_beside_others_and_resumed() -> None:
    driven = load(BEE_TINY)
    tokenizer = driven.engine.tokenizer
    sampling = Sampling(temperature=0.7, seed=3)
    prompts = [
        tuple(tokenizer.encode(CHAT.format(question), special=True, bos=False))
        for question in ("Tell me a story.", "What is 7 plus 5?", "What is the opposite of hot?")
    ]
    alone = [driven.answer(prompt, 120, sampling) for prompt in prompts]
    assert [answer.finish for answer in alone] == ["stop"] * 3
    together = driven.finish(*(driven.start(prompt, 120, sampling) for prompt in prompts))
    assert [answer.token_ids for answer in together] == [answer.token_ids for answer in alone]
    story = alone[0].token_ids
    for had in (1, len(story) // 2, len(story)):
        rest = driven.answer((*prompts[0], *story[:had]), 120 - had, sampling, resumed=had)
        assert rest.token_ids == story[had:]
        assert rest.finish == "stop"
    driven.engine.close()


def test_stopped_load_says_so(path: Path) -> None:
    engine = LlamaCppEngine()
    engine.abort()
    model = ModelConfig(ref=f"file:{path}", engine="llamacpp")
    with pytest.raises(EngineError, match="stopped"):
        engine.load(LoadSpec(model, path, threads=1), lambda phase, fraction: None)
    engine.close()
