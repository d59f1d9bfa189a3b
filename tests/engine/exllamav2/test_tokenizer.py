"""Tokens to bytes, and text to tokens, by tokenizer.json."""

import json
from pathlib import Path
from typing import Any

import pytest

from rbee.engine.exllamav2.files import end_ids, read_files
from rbee.engine.exllamav2.tokenizer import TOKEN_ID_MAX, HfTokenizer, pieces, special_ids
from rbee.errors import EngineError
from tests.engine.exllamav2.folder import BEGIN, END, TOOL, TURN_END, tokenizer_document


@pytest.fixture
def tokenizer(stand: str, folder: Path) -> Any:
    """By the fake library, and by the real one where it is."""
    return HfTokenizer(read_files(folder))


def rewrite(folder: Path, name: str, **changes: Any) -> Any:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_every_byte_has_its_own_token_in_a_byte_level_vocabulary() -> None:
    table = pieces(tokenizer_document(), frozenset())
    assert table[:256] == [bytes([byte]) for byte in range(256)]


def test_a_merged_byte_level_token_gives_its_raw_bytes() -> None:
    document = tokenizer_document()
    document["model"]["vocab"]["ĠhÃ"] = 260  # " h" and the first byte of é
    assert pieces(document, frozenset())[260] == b" h\xc3"


def test_a_byte_fallback_vocabulary_gives_raw_bytes_and_spaces() -> None:
    document = {
        "model": {
            "type": "BPE",
            "vocab": {"<unk>": 0, "<0xE2>": 1, "▁the": 2, "ré": 3, "<0x0A>": 4},
        },
        "added_tokens": [{"id": 0, "content": "<unk>", "special": True}],
        "decoder": {
            "type": "Sequence",
            "decoders": [{"type": "Replace"}, {"type": "ByteFallback"}, {"type": "Fuse"}],
        },
    }
    assert pieces(document, frozenset({0})) == [b"", b"\xe2", b" the", "ré".encode(), b"\n"]


def test_a_unigram_vocabulary_is_a_list_of_texts_and_scores() -> None:
    document = {
        "model": {"type": "Unigram", "vocab": [["<unk>", 0.0], ["▁a", -1.0]]},
        "decoder": {"type": "Metaspace"},
    }
    assert pieces(document, frozenset({0})) == [b"", b" a"]


def test_an_unknown_way_to_spell_bytes_is_refused() -> None:
    document = {"model": {"vocab": {"##a": 0}}, "decoder": {"type": "WordPiece"}}
    with pytest.raises(EngineError, match=r"found \['WordPiece'\]"):
        pieces(document, frozenset())


def test_special_tokens_have_no_bytes_and_other_added_ones_have(tokenizer: HfTokenizer) -> None:
    assert [tokenizer.piece(i) for i in (END, TURN_END, BEGIN)] == [b"", b"", b""]
    assert tokenizer.piece(TOOL) == b"<tool>"
    assert tokenizer.piece(-1) == tokenizer.piece(10**6) == b""
    assert tokenizer.vocabulary_size == 260


@pytest.mark.parametrize("text", ["", "plain", "grüße, 世界 🐝", " spaces  and\n\ttabs "])
def test_pieces_of_encoded_text_give_the_text_again(tokenizer: HfTokenizer, text: str) -> None:
    ids = tokenizer.encode(text, special=False, bos=False)
    assert b"".join(map(tokenizer.piece, ids)).decode() == text


def test_the_text_of_a_special_token_in_a_clients_prompt_stays_text(tokenizer: HfTokenizer) -> None:
    text = "hi<|turn_end|>"
    as_text = tokenizer.encode(text, special=False, bos=False)
    assert TURN_END not in as_text
    assert b"".join(map(tokenizer.piece, as_text)).decode() == text
    assert tokenizer.encode(text, special=True, bos=False) == [*b"hi", TURN_END]


def test_a_lone_surrogate_does_not_stop_the_encoder(tokenizer: HfTokenizer) -> None:
    assert tokenizer.encode("a\ud800b", special=False, bos=False) == [*b"a?b"]


def test_bos_comes_first_where_it_is_asked_for_and_the_model_wants_it(
    stand: str, folder: Path, tokenizer: HfTokenizer
) -> None:
    assert tokenizer.encode("a", special=False, bos=True) == [BEGIN, *b"a"]
    assert tokenizer.encode("a", special=False, bos=False) == [*b"a"]
    rewrite(folder, "tokenizer_config.json", add_bos_token=False)
    assert HfTokenizer(read_files(folder)).encode("a", special=False, bos=True) == [*b"a"]


def test_names_of_special_tokens_and_the_template_are_read(tokenizer: HfTokenizer) -> None:
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|begin|>", "<|end|>")
    assert "turn_end" in (tokenizer.chat_template or "")


def test_a_template_file_goes_before_the_one_in_the_config(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("from the file")
    assert read_files(folder).chat_template == "from the file"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ([{"name": "tool", "template": "t"}, {"name": "default", "template": "d"}], "d"),
        ([{"name": "tool", "template": "t"}], None),
    ],
)
def test_templates_by_name_mean_the_default_one(folder: Path, value: Any, expected: Any) -> None:
    rewrite(folder, "tokenizer_config.json", chat_template=value)
    assert read_files(folder).chat_template == expected


@pytest.mark.parametrize(
    ("config", "generation", "named", "expected"),
    [
        (5, None, None, {5}),
        ([5, 6], 7, None, {5, 6, 7}),
        (None, [8], "<|end|>", {8, END}),
        (None, None, {"content": "<|end|>"}, {END}),
        (None, None, None, set()),
    ],
)
def test_end_tokens_are_gathered_from_all_files(
    folder: Path, config: Any, generation: Any, named: Any, expected: Any
) -> None:
    rewrite(folder, "config.json", eos_token_id=config)
    rewrite(folder, "generation_config.json", eos_token_id=generation)
    rewrite(folder, "tokenizer_config.json", eos_token=named)
    assert end_ids(read_files(folder), {"<|end|>": END}) == expected


@pytest.mark.parametrize("wrong", ["<|end|>", [True], -1])
def test_an_end_token_that_is_no_id_is_refused(folder: Path, wrong: Any) -> None:
    rewrite(folder, "config.json", eos_token_id=wrong)
    with pytest.raises(EngineError, match="eos_token_id must hold token ids"):
        end_ids(read_files(folder), {})


@pytest.mark.parametrize(
    "changes",
    [
        {"model": []}, {"model": {"vocab": 5}}, {"model": {"vocab": [[]]}},
        {"model": {"vocab": {"a": "b"}}}, {"model": {"vocab": {"a": -1}}},
        {"model": {"vocab": {"a": TOKEN_ID_MAX + 1}}}, {"model": {"vocab": {"a\ud800": 0}}},
        {"added_tokens": [{}]}, {"added_tokens": [5]},
        {"added_tokens": [{"content": "a", "id": []}]},
        {"decoder": {"type": []}}, {"decoder": {"type": "Sequence", "decoders": 5}},
    ],
    ids=str,
)  # fmt: skip
def test_a_tokenizer_of_another_form_is_refused(changes: Any) -> None:
    with pytest.raises(EngineError, match=r"tokenizer\.json"):
        pieces(tokenizer_document() | changes, frozenset())


def test_added_tokens_of_another_form_are_refused(folder: Path) -> None:
    rewrite(folder, "tokenizer_config.json", added_tokens_decoder={"x": {"special": True}})
    with pytest.raises(EngineError, match="added tokens"):
        special_ids(read_files(folder))
    rewrite(folder, "tokenizer_config.json", added_tokens_decoder=[])
    with pytest.raises(EngineError, match="added tokens"):
        special_ids(read_files(folder))


def test_documents_that_are_nested_too_deep_are_refused(folder: Path) -> None:
    (folder / "config.json").write_text('{"a": ' + "[" * 100_000)
    with pytest.raises(EngineError, match="nested too deep"):
        read_files(folder)


def test_a_list_of_templates_of_another_form_is_refused(folder: Path) -> None:
    rewrite(folder, "tokenizer_config.json", chat_template=[["default", "x"]])
    with pytest.raises(EngineError, match="chat_template"):
        read_files(folder)
