"""The files of bee-tiny that come with rbee."""

import json
import re
from pathlib import Path

from rbee.ask import Message
from rbee.engine.chat import ChatTemplate
from rbee.engine.llamacpp.gguf import read_gguf
from rbee.engine.llamacpp.model import ROW_BY_ROW
from rbee.supervisor.catalogue import BEE_TINY

SHIPPED = BEE_TINY.parent
PROMPTS = Path(__file__).with_name("prompts.json")


def read_json(name: str) -> dict[str, object]:
    content: dict[str, object] = json.loads((SHIPPED / name).read_text("utf-8"))
    return content


def test_they_take_at_most_four_megabytes() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.iterdir() if path.is_file()) <= 4_000_000


def test_all_matrices_are_of_the_type_that_is_computed_row_by_row() -> None:
    gguf = read_gguf(BEE_TINY)
    assert gguf.matrix_types == ROW_BY_ROW
    assert gguf.metadata["general.file_type"] == 9  # mostly Q5_1
    assert gguf.metadata["general.quantization_version"] == 2


def test_weights_and_settings_name_the_same_end_of_turn() -> None:
    tokenizer = read_json("tokenizer.json")["model"]
    assert isinstance(tokenizer, dict)
    tokens = {"<|im_end|>": 3, "<|bos|>": 1, "<|pad|>": 0}
    assert {token: tokenizer["vocab"][token] for token in tokens} == tokens
    header = read_gguf(BEE_TINY).metadata
    assert header["tokenizer.ggml.eos_token_id"] == 3
    for name in ("config.json", "generation_config.json"):
        assert read_json(name)["eos_token_id"] == 3
    assert read_json("tokenizer_config.json")["eos_token"] == "<|im_end|>"


def test_weights_and_settings_have_the_same_shape() -> None:
    header, config = read_gguf(BEE_TINY), read_json("config.json")
    assert header.number("context_length", 0) == config["max_position_embeddings"] == 2048
    assert header.number("block_count", 0) == config["num_hidden_layers"]
    assert header.number("embedding_length", 0) == config["hidden_size"]
    assert header.number("feed_forward_length", 0) == config["intermediate_size"]
    assert header.number("attention.head_count_kv", 0) == config["num_key_value_heads"]
    assert header.metadata["llama.rope.freq_base"] == config["rope_theta"] == 10000.0


def test_template_renders_any_row_of_roles() -> None:
    source = read_gguf(BEE_TINY).metadata["tokenizer.chat_template"]
    assert source == read_json("tokenizer_config.json")["chat_template"]
    template = ChatTemplate(str(source), "<|bos|>", "<|im_end|>")

    prompt = template.render(
        [Message("system", "Be brief."), Message("user", " Hi! "), Message("user", "Who are you?")]
    )

    assert prompt == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi!<|im_end|>\n"
        "<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_list_of_prompts_is_long_and_its_patterns_compile() -> None:
    cases = json.loads(PROMPTS.read_text("utf-8"))
    assert len(cases) >= 60
    for case in cases:
        assert case["messages"][-1]["role"] == "user"
        re.compile(case["accept"])
