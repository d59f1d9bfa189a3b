"""exllamav2 on a GPU, with a real model."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from rbee.ask import Sampling
from rbee.engine.engine import Feature
from rbee.engine.exllamav2 import ExLlamaV2Engine
from rbee.errors import EngineError, ExitCode
from rbee.vram import cache_token_bytes
from rbee.wire import Phase
from tests.engine.driving import GREEDY, Driven
from tests.gpu.conftest import spec_of

pytestmark = pytest.mark.gpu

PROMPTS = [f"Count from {i} to {i + 9}, and tell me a story of {i} bees. " * 2 for i in range(24)]
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"name": {"enum": ["Ann", "Bob"]}, "old": {"type": "boolean"}},
        "required": ["name", "old"],
        "additionalProperties": False,
    }
)


def generator_of(driven: Driven) -> Any:
    engine: Any = driven.engine
    return engine._loaded.generator


def free_pages(driven: Driven) -> int:
    return len(generator_of(driven).unreferenced_pages)


def test_what_is_loaded_stands_on_the_gpu(driven: Driven) -> None:
    info = driven.info
    assert info.engine == "exllamav2"
    assert info.device.startswith("cuda:0 ")
    assert info.vram_bytes > 0
    assert {"attention", "cache", "exllamav2", "torch"} <= set(info.detail)
    assert Feature.JSON_SCHEMA in info.features
    assert [phase for phase, _ in driven.progress if phase is Phase.WARMING]


def test_a_greedy_answer_repeats_itself(driven: Driven) -> None:
    first, second = (driven.answer(PROMPTS[0], 40) for _ in range(2))
    assert first.token_ids == second.token_ids


def test_a_greedy_batch_gives_what_each_job_gives_alone(driven: Driven) -> None:
    """Sums of half floats differ with the batch: the first tokens agree, later ones may part."""
    alone = [driven.answer(prompt, 24).token_ids for prompt in PROMPTS]
    jobs = [driven.start(prompt, 24) for prompt in PROMPTS]
    together = [answer.token_ids for answer in driven.finish(*jobs)]
    same = sum(a == b for a, b in zip(alone, together, strict=True))
    assert [each[:1] for each in alone] == [each[:1] for each in together]
    assert same >= 0.9 * len(PROMPTS)


def test_logprobs_are_those_of_a_distribution(driven: Driven) -> None:
    answer = driven.answer(PROMPTS[0], 20, Sampling(temperature=0, logprobs=20))
    for entry in answer.logprobs:
        assert entry.logprob == entry.top[0][2] <= 0
        assert sum(math.exp(value) for *_, value in entry.top) <= 1 + 1e-5


def test_raw_logprobs_do_not_feel_a_bias(driven: Driven) -> None:
    plain = driven.answer(PROMPTS[0], 1, Sampling(temperature=0, logprobs=5)).logprobs[0]
    likeliest = plain.top[0][0]
    shaped = driven.answer(
        PROMPTS[0], 1, Sampling(temperature=0, logprobs=5, logit_bias={likeliest: -100.0})
    ).logprobs[0]
    assert shaped.token_id != likeliest
    assert [i for i, *_ in shaped.top] == [i for i, *_ in plain.top]


def test_answers_by_a_schema_match_it_beside_free_ones(driven: Driven) -> None:
    sampling = [Sampling(temperature=1.0, seed=seed) for seed in range(8)]
    by_schema = [driven.start("Who?", 100, each, json_schema=SCHEMA) for each in sampling]
    free = [driven.start(prompt, 30) for prompt in PROMPTS[:4]]
    for answer in driven.finish(*by_schema):
        value = json.loads(answer.text)
        assert value["name"] in {"Ann", "Bob"}
        assert isinstance(value["old"], bool)
        assert answer.finish == "stop"
    assert all(answer.is_over for answer in driven.finish(*free))


def test_cancelled_jobs_give_their_pages_back(driven: Driven) -> None:
    free = free_pages(driven)
    jobs = [driven.start(prompt, 100) for prompt in PROMPTS]
    for _ in range(5):
        driven.step()
    assert free_pages(driven) < free
    for job_id in jobs:
        driven.cancel(job_id)
    assert free_pages(driven) == free
    assert driven.engine.phase is Phase.IDLE


def test_a_prompt_that_came_before_is_not_read_again(driven: Driven) -> None:
    prompt = (driven.encode("bees and honey ") * 400)[: driven.info.context_length // 2]
    if len(prompt) < 600:
        pytest.skip("the model's context is shorter than three pages")
    first, second = (driven.answer(prompt, 1) for _ in range(2))
    assert first.token_ids == second.token_ids
    hashes = {page.phash for page in generator_of(driven).all_pages if page.kv_position == 256}
    assert len(hashes) >= 2


@pytest.mark.parametrize("bits", [8, 6, 4])
def test_a_quantised_cache_answers_nearly_as_the_plain_one(
    driven: Driven, bee_tiny: Path, bits: int
) -> None:
    plain = driven.answer(PROMPTS[0], 8, Sampling(temperature=0, logprobs=0)).logprobs
    engine = ExLlamaV2Engine()
    other = Driven(engine, spec_of(bee_tiny, cache_bits=bits, batch_size=4))
    try:
        assert other.info.detail["cache"].startswith(f"Q{bits} ")
        told = other.answer(PROMPTS[0], 8, Sampling(temperature=0, logprobs=0)).logprobs
        assert told[0].logprob == pytest.approx(plain[0].logprob, abs=0.7)
    finally:
        engine.close()


def test_attention_in_torch_agrees_with_flash_attn(
    driven: Driven, bee_tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not driven.info.detail["attention"].startswith("flash-attn"):
        pytest.skip("flash-attn is not installed: there is nothing to compare with")
    import exllamav2.attn  # noqa: PLC0415 - there where a GPU is

    asked = Sampling(temperature=0, logprobs=0)
    expected = driven.answer(PROMPTS[0], 16, asked).logprobs
    for name in ("flash_attn", "flash_attn_func", "flash_attn_varlen_func",
                 "flash_attn_with_kvcache"):  # fmt: skip
        monkeypatch.setattr(exllamav2.attn, name, None)
    engine = ExLlamaV2Engine()
    other = Driven(engine, spec_of(bee_tiny, batch_size=8))
    try:
        assert other.info.detail["attention"].startswith("torch")
        got = other.answer(PROMPTS[0], 16, asked).logprobs
        assert [each.token_id for each in got[:4]] == [each.token_id for each in expected[:4]]
        assert got[0].logprob == pytest.approx(expected[0].logprob, abs=0.05)
    finally:
        engine.close()


def test_a_cache_larger_than_its_share_of_the_vram_is_out_of_memory(
    driven: Driven, bee_tiny: Path
) -> None:
    import torch  # noqa: PLC0415 - there where a GPU is

    from rbee.engine.exllamav2.load import shape_of  # noqa: PLC0415

    share = 0.1
    loaded: Any = driven.engine
    shape = shape_of(loaded._library, loaded._loaded.model.config, 0)
    total = torch.cuda.mem_get_info(0)[1]
    tokens = int(1.5 * share * total / cache_token_bytes(shape, 16))
    engine = ExLlamaV2Engine()
    try:
        with pytest.raises(EngineError, match="do not fit into 10%") as caught:
            engine.load(
                spec_of(bee_tiny, vram_fraction=share, cache_tokens=tokens),
                lambda _phase, _fraction: None,
            )
        assert caught.value.exit_code is ExitCode.OUT_OF_MEMORY
    finally:
        engine.close()
        torch.cuda.set_per_process_memory_fraction(0.95, 0)


def test_tokens_of_an_answer_are_its_text(driven: Driven) -> None:
    answer = driven.answer(PROMPTS[1], 60, GREEDY)
    tokenizer = driven.engine.tokenizer
    assert answer.pieces == [tokenizer.piece(i) for i in answer.token_ids]
    answer.text.decode("utf-8", "strict" if answer.finish == "stop" else "replace")


def test_bee_tiny_answers_a_question(driven: Driven, bee_tiny: Path) -> None:
    if bee_tiny.parent.name == "" or driven.engine.tokenizer.chat_template is None:
        pytest.skip("another model than bee-tiny was named")
    from rbee.ask import Message  # noqa: PLC0415
    from rbee.engine.chat import ChatTemplate  # noqa: PLC0415

    tokenizer = driven.engine.tokenizer
    template = ChatTemplate(tokenizer.chat_template or "", tokenizer.bos_token, tokenizer.eos_token)
    text = template.render((Message("user", "What is the capital of Norway?"),))
    prompt = tuple(tokenizer.encode(text, special=True, bos=False))
    answer = driven.answer(prompt, 40)
    assert b"Oslo" in answer.text
    assert answer.finish == "stop"
