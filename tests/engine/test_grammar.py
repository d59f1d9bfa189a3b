"""Schemas as grammars: what they admit, and what they refuse."""

import json
from typing import Any

import llguidance
import numpy as np
import pytest

from rbee.ask import SCHEMA_BYTES_MAX
from rbee.engine.grammar import DEPTH_MAX, GRAMMARS_KEPT, Grammar, GrammarFactory
from rbee.errors import ErrorCode, RequestError
from tests.engine.plain_tokenizer import END, OTHER_END, PlainTokenizer

PERSON = json.dumps(
    {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
)


@pytest.fixture(scope="module")
def factory() -> GrammarFactory:
    return GrammarFactory(PlainTokenizer())


def follow(grammar: Grammar, text: str) -> bool:
    """Go along ``text`` byte by byte. False where it is not admitted."""
    for byte in text.encode():
        if not grammar.mask()[byte]:
            return False
        grammar.advance(byte)
    return True


def test_mask_admits_what_may_come_and_nothing_else(factory: GrammarFactory) -> None:
    admitted = np.flatnonzero(factory.json_schema('{"type":"object"}').mask())
    assert {bytes(PlainTokenizer().piece(int(i))) for i in admitted} == {b"{", b'{"'}


@pytest.mark.parametrize("text", ['{"name":"Ada","age":36}', '{ "name": "é😀\\n",\n\t"age": -1 }'])
def test_answer_by_the_schema_is_admitted_to_its_end(factory: GrammarFactory, text: str) -> None:
    grammar = factory.json_schema(PERSON)
    assert follow(grammar, text)
    assert grammar.is_complete
    assert grammar.is_finished
    assert np.flatnonzero(grammar.mask()).tolist() == [END, OTHER_END]


@pytest.mark.parametrize("text", ['{"age":', '{"name":3', "[", "null", '{"name":"a"}'])
def test_other_answers_are_not_admitted(factory: GrammarFactory, text: str) -> None:
    assert not follow(factory.json_schema(PERSON), text)


def test_end_may_come_only_when_complete(factory: GrammarFactory) -> None:
    grammar = factory.json_schema('{"type":"integer"}')
    assert not grammar.mask()[END]
    grammar.advance(ord("4"))
    assert grammar.mask()[END]
    assert grammar.mask()[ord("2")]
    assert not grammar.is_finished


def test_white_space_is_bounded(factory: GrammarFactory) -> None:
    grammar = factory.json_schema('{"type":"object"}')
    assert follow(grammar, "{" + " " * 32)
    assert not grammar.mask()[ord(" ")]


def test_forbid_sets_all_others_to_minus_infinity(factory: GrammarFactory) -> None:
    grammar = factory.json_schema('{"type":"boolean"}')
    scores = np.zeros(PlainTokenizer.vocabulary_size + 5, np.float32)  # padded, as some engines do
    grammar.forbid(scores)
    assert np.flatnonzero(scores == 0).tolist() == np.flatnonzero(grammar.mask()).tolist()
    assert (scores[PlainTokenizer.vocabulary_size :] == -np.inf).all()


def test_resumed_grammar_stands_where_the_answer_does(factory: GrammarFactory) -> None:
    whole = factory.json_schema(PERSON)
    assert follow(whole, '{"name":"A')
    resumed = factory.json_schema(PERSON, tuple(b'{"name":"A'))
    assert (resumed.mask() == whole.mask()).all()


def test_answer_that_does_not_fit_cannot_be_resumed(factory: GrammarFactory) -> None:
    with pytest.raises(RequestError):
        factory.json_schema(PERSON, tuple(b"nonsense"))


def test_grammars_of_one_schema_do_not_disturb_each_other(factory: GrammarFactory) -> None:
    first, second = factory.json_schema(PERSON), factory.json_schema(PERSON)
    assert follow(first, '{"name":"Ada"')
    assert follow(second, '{"name":"Bob"')
    assert follow(first, ',"age":1}')
    assert not second.is_complete


def test_kept_grammars_are_bounded() -> None:
    factory = GrammarFactory(PlainTokenizer())
    for number in range(GRAMMARS_KEPT + 10):
        factory.json_schema(json.dumps({"type": "integer", "minimum": number}))
    assert len(factory._compiled) == GRAMMARS_KEPT


def test_a_kept_grammar_is_for_those_with_its_salt(monkeypatch: pytest.MonkeyPatch) -> None:
    factory = GrammarFactory(PlainTokenizer())
    compiled = list[str]()
    compile_plainly = factory._compile
    monkeypatch.setattr(
        factory, "_compile", lambda schema: compiled.append(schema) or compile_plainly(schema)
    )
    for salt in (b"mine", b"another's", b"mine", b"another's"):
        factory.json_schema(PERSON, salt=salt)
    assert compiled == [PERSON] * 2


def _nested(depth: int) -> str:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth // 2):
        schema = {"type": "object", "properties": {"a": schema}}
    return json.dumps(schema)


REFUSED = {
    "not JSON": "{",
    "no object": "[]",
    "a number": "3",
    "unknown type": '{"type":"nope"}',
    "unknown reference": '{"$ref":"#/nope"}',
    "too large": json.dumps({"description": "x" * SCHEMA_BYTES_MAX}),
    "too deep": _nested(2 * DEPTH_MAX),
    "deeper than Python goes": '{"a":' * 3000,
    "thousands of brackets in a pattern": json.dumps(
        {"type": "string", "pattern": "(" * 7000 + ")" * 7000}
    ),
}


@pytest.mark.parametrize("schema", REFUSED.values(), ids=REFUSED.keys())
def test_bad_schema_is_the_clients_error(factory: GrammarFactory, schema: str) -> None:
    with pytest.raises(RequestError) as refusal:
        factory.json_schema(schema)
    assert refusal.value.code is ErrorCode.INVALID_REQUEST
    assert refusal.value.param == "response_format"
    assert len(refusal.value.message) < 400


def test_schema_as_deep_as_allowed_is_taken(factory: GrammarFactory) -> None:
    assert follow(factory.json_schema(_nested(DEPTH_MAX - 2)), '{"a":{"a":')


def test_large_enum_is_quick(factory: GrammarFactory) -> None:
    words = [f"word number {i}" for i in range(700)]
    grammar = factory.json_schema(json.dumps({"enum": words}))
    assert follow(grammar, '"word number 699"')
    assert grammar.is_finished


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*b", "(a{100}){100}"])
def test_hostile_pattern_neither_hangs_nor_crashes(factory: GrammarFactory, pattern: str) -> None:
    grammar = factory.json_schema(json.dumps({"type": "string", "pattern": pattern}))
    assert follow(grammar, '"' + "a" * 64)


class FakePanicError(BaseException):
    """Stands for pyo3's PanicException, which is no `Exception`."""


def test_panic_in_the_library_is_an_error_of_that_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    factory = GrammarFactory(PlainTokenizer())
    grammar = factory.json_schema(PERSON)

    class Panicking:
        def __getattr__(self, name: str) -> Any:
            raise FakePanicError

    monkeypatch.setattr(grammar, "_matcher", Panicking())
    with pytest.raises(RequestError):
        grammar.mask()
    with pytest.raises(RequestError):
        grammar.advance(1)
    monkeypatch.setattr(llguidance, "LLMatcher", Panicking())
    with pytest.raises(RequestError):
        factory.json_schema('{"type":"null"}')


def test_keyboard_interrupt_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    grammar = GrammarFactory(PlainTokenizer()).json_schema(PERSON)

    class Interrupted:
        def consume_token(self, token_id: int) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(grammar, "_matcher", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        grammar.advance(1)
