"""Bodies of both generation routes: what is read out of them, and what is refused, all at once."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.ask import Ask, Message, Sampling
from rbee.errors import ErrorCode, RequestError
from rbee.supervisor.api.chat_body import read_chat
from rbee.supervisor.api.completion_body import read_completion
from rbee.supervisor.api.fields import DETAILS_MAX
from rbee.supervisor.api.order import Order
from tests.api.face import CHAT, COMPLETION

MODEL = "bee-tiny"
USER = {"role": "user", "content": "hi"}


def chat(**more: object) -> Order:
    return read_chat(json.dumps({**CHAT, **more}).encode())


def completion(**more: object) -> Order:
    return read_completion(json.dumps({**COMPLETION, **more}).encode())


def refused(read: Callable[..., Order], **more: object) -> RequestError:
    with pytest.raises(RequestError) as caught:
        read(**more)
    return caught.value


def faults(error: RequestError) -> list[str]:
    return [each.field for each in error.details]


# --- what is read


def test_a_plain_chat_has_openais_defaults() -> None:
    order = chat()
    message = Message(role="user", content="What is 2 + 2?")
    assert order.asks == (Ask(model=MODEL, messages=(message,), sampling=Sampling()),)
    assert not order.is_streamed
    assert not order.include_usage


def test_every_sampling_parameter_reaches_the_engine() -> None:
    given: dict[str, Any] = {
        "temperature": 0, "top_p": 0.5, "top_k": 40, "min_p": 0.05, "frequency_penalty": -2,
        "presence_penalty": 1.5, "repetition_penalty": 1.1, "seed": 7,
    }  # fmt: skip
    for order in (chat(**given, logit_bias={"5": -100, "07": 2.5}),
                  completion(**given, logit_bias={"5": -100, "07": 2.5})):  # fmt: skip
        assert order.asks[0].sampling == Sampling(**given, logit_bias={5: -100.0, 7: 2.5})


def test_stop_is_a_string_or_an_array() -> None:
    assert chat(stop="END").asks[0].stop == ("END",)
    assert chat(stop=["a", "b"]).asks[0].stop == ("a", "b")
    assert chat(stop=[]).asks[0].stop == ()


def test_both_names_of_the_limit_on_tokens_are_taken() -> None:
    assert chat(max_tokens=9).asks[0].tokens_max == 9
    assert chat(max_completion_tokens=9).asks[0].tokens_max == 9
    assert chat(max_tokens=9, max_completion_tokens=9).asks[0].tokens_max == 9
    assert faults(refused(chat, max_tokens=9, max_completion_tokens=8)) == ["max_tokens"]


def test_messages_have_roles_and_parts() -> None:
    order = chat(
        messages=[
            {"role": "developer", "content": "Be brief.", "name": "boss"},
            {"role": "user", "content": [{"type": "text", "text": t} for t in ("a", "b")]},
            {"role": "assistant", "content": "", "refusal": None, "tool_calls": None,
             "function_call": None, "audio": None, "annotations": []},
        ]
    )  # fmt: skip
    assert [(each.role, each.content) for each in order.asks[0].messages] == [
        ("system", "Be brief."),
        ("user", "a\nb"),
        ("assistant", ""),
    ]


def test_null_is_absent() -> None:
    names = ["temperature", "top_p", "seed", "stop", "n", "logprobs", "logit_bias", "stream",
             "stream_options", "response_format", "max_tokens", "tools", "audio"]  # fmt: skip
    assert chat(**dict.fromkeys(names)) == chat()


def test_what_changes_nothing_here_is_taken() -> None:
    ignored: dict[str, Any] = {
        "user": "u", "metadata": {"a": "b"}, "store": True, "service_tier": "auto",
        "parallel_tool_calls": False, "tools": [], "tool_choice": "none", "modalities": ["text"],
    }  # fmt: skip
    assert chat(**ignored) == chat()
    assert completion(echo=False, best_of=1, suffix=None, user="u") == completion()


def test_choices_share_a_prompt_and_differ_in_seed() -> None:
    assert [each.sampling.seed for each in chat(n=3, seed=2**63 - 2).asks] == [
        2**63 - 2, 2**63 - 1, 0,
    ]  # fmt: skip
    assert [each.sampling.seed for each in chat(n=2).asks] == [None, None]
    assert chat(seed=-1).asks[0].sampling.seed == 2**63 - 1


def test_a_response_format_becomes_a_schema() -> None:
    schema = {"type": "object", "properties": {"b": {"type": "integer"}, "a": {}}}
    named = {"name": "answer", "description": "x", "schema": schema, "strict": True}
    wanted = {"type": "json_schema", "json_schema": named}
    text = chat(response_format=wanted).asks[0].json_schema
    assert text is not None
    assert json.loads(text) == schema
    assert text.index('"b"') < text.index('"a"')
    assert chat(response_format={"type": "text"}).asks[0].json_schema is None
    assert chat(response_format={"type": "json_object"}).asks[0].json_schema == '{"type":"object"}'


def test_a_prompt_is_text_or_token_ids_one_or_many() -> None:
    assert [each.prompt for each in completion(prompt="a").asks] == ["a"]
    assert [each.prompt for each in completion(prompt=["a", "b"]).asks] == ["a", "b"]
    assert [each.prompt_ids for each in completion(prompt=[1, 2]).asks] == [(1, 2)]
    assert [each.prompt_ids for each in completion(prompt=[[1], [2, 3]]).asks] == [(1,), (2, 3)]
    assert completion().asks[0].tokens_max == 16


# --- what is refused


def test_all_violations_are_told_at_once_without_a_value() -> None:
    error = refused(
        chat,
        temperature=3,
        n="secret",
        stop=[""],
        messages=[USER, {"role": "secret"}, {"role": "user", "content": 5, "secret": 1}],
        secret_thing=1,
    )
    assert error.code is ErrorCode.INVALID_REQUEST
    assert faults(error) == [
        "messages[1].role", "messages[1].content", "messages[2].content", "messages[2].secret",
        "temperature", "n", "stop", "secret_thing",
    ]  # fmt: skip
    assert "secret" not in " ".join(each.problem for each in error.details)


def test_unknown_fields_alone_are_unsupported_parameters() -> None:
    error = refused(chat, mirostat=2, tools=[{"type": "function"}], echo=False)
    assert error.code is ErrorCode.UNSUPPORTED_PARAMETER
    assert sorted(faults(error)) == ["echo", "mirostat", "tools"]


def test_the_name_of_an_unknown_field_is_told_only_if_it_is_a_name() -> None:
    error = refused(chat, **{"my password is\x1b[2J hunter2": 1})
    assert faults(error) == ["(a field)"]


def test_a_mass_of_violations_is_told_in_part() -> None:
    error = refused(chat, **{f"field_{i}": i for i in range(5000)})
    assert len(error.details) == DETAILS_MAX
    assert "4999 more" in error.message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", None), ("model", ""), ("model", "../etc"), ("model", "a b"), ("model", "x" * 129),
        ("messages", None), ("messages", []), ("messages", "hi"), ("messages", [USER] * 2049),
        ("messages[0]", ["hi"]), ("messages[0].role", [{"content": "x"}]),
        ("messages[0].role", [{"role": "tool", "content": "x"}]),
        ("messages[0].role", [{"role": ["user"], "content": "x"}]),
        ("messages[0].content", [{"role": "user", "content": None}]),
        ("messages[0].content", [{"role": "user", "content": []}]),
        ("messages[0].content[0].type", [{"role": "user", "content": [{"type": "image_url"}]}]),
        ("messages[0].content[0].text", [{"role": "user", "content": [{"type": "text"}]}]),
        ("messages[0].content[0]", [{"role": "user", "content": ["x"]}]),
        ("messages[0].tool_calls", [{**USER, "tool_calls": [{}]}]),
        ("temperature", True), ("temperature", "1"), ("temperature", -0.1),
        ("temperature", 10**400),
        ("top_p", 0), ("top_p", 1.1), ("top_k", 1.0), ("top_k", -2), ("min_p", 2),
        ("repetition_penalty", 0), ("frequency_penalty", 2.1), ("presence_penalty", -3),
        ("seed", 2**63), ("seed", True), ("seed", 5.0), ("n", 0), ("n", 17), ("n", True),
        ("max_tokens", 0), ("max_tokens", 2**20 + 1), ("max_completion_tokens", 5.0),
        ("stop", 5), ("stop", ["x"] * 17), ("stop", "é" * 129), ("stop", [None]),
        ("logprobs", 2), ("top_logprobs", 2), ("logit_bias", []), ("logit_bias", {"x": 1}),
        ("logit_bias", {"5": 101}), ("logit_bias", {"5": True}), ("logit_bias", {"5": 1, "05": 1}),
        ("logit_bias", {"-1": 1}), ("logit_bias", {str(i): 1 for i in range(1025)}),
        ("stream", "yes"), ("stream_options", {"include_usage": True}),
        ("response_format.type", "json"), ("response_format.type", {"type": "xml"}),
        ("response_format.type", {"type": {}}),
        ("response_format.json_schema", {"type": "json_schema"}),
        ("response_format.schema", {"type": "json_object", "schema": {}}),
        ("response_format.json_schema.schema",
         {"type": "json_schema", "json_schema": {"name": "x"}}),
        ("response_format.json_schema.name",
         {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}),
        ("response_format.json_schema.schema",
         {"type": "json_schema", "json_schema": {"name": "x", "schema": {"d": "x" * 20_000}}}),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_a_chat_with_one_fault_names_it(field: str, value: object) -> None:
    name = field.partition(".")[0].partition("[")[0]
    assert faults(refused(chat, **{name: value})) == [field]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", None), ("prompt", ""), ("prompt", []), ("prompt", [""]), ("prompt", [[]]),
        ("prompt", ["a", 1]), ("prompt", [1, "a"]), ("prompt", [1, True]), ("prompt", [1, -1]),
        ("prompt", [1, 2**31]), ("prompt", [[1], "a"]), ("prompt", ["a"] * 129), ("prompt", {}),
        ("prompt", [None]), ("prompt", [1.5]), ("n", 16.0), ("logprobs", 6), ("logprobs", True),
        ("echo", True), ("best_of", 2), ("suffix", "x"), ("messages", [USER]), ("tools", []),
        ("stream_options.include_obfuscation", {"include_obfuscation": True}),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_a_completion_with_one_fault_names_it(field: str, value: object) -> None:
    name = field.partition(".")[0]
    assert faults(refused(completion, stream=True, **{name: value})) == [field]


def test_prompts_times_choices_are_bounded() -> None:
    assert len(completion(prompt=["a"] * 8, n=16).asks) == 128
    assert faults(refused(completion, prompt=["a"] * 9, n=16)) == ["n"]


@pytest.mark.parametrize("raw", [b"[]", b"null", b"5", b'"x"', b"true"])
def test_a_body_must_be_an_object(raw: bytes) -> None:
    for read in (read_chat, read_completion):
        with pytest.raises(RequestError) as caught:
            read(raw)
        assert faults(caught.value) == ["body"]


# --- any body whatever

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text() | st.sampled_from(["text", "json_schema", "user", "image_url", "json_object"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(["type", "text", "role", "content", "json_schema", "schema", "name", "5"])
        | st.text(max_size=5),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip

NAMES = st.sampled_from(
    ["model", "messages", "prompt", "max_tokens", "max_completion_tokens", "temperature", "top_p",
     "top_k", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty", "seed",
     "logit_bias", "stop", "n", "stream", "stream_options", "logprobs", "top_logprobs",
     "response_format", "tools", "tool_choice", "modalities", "echo", "best_of", "suffix", "user"]
)  # fmt: skip


@given(st.dictionaries(NAMES, VALUES, max_size=6), st.booleans())
def test_any_json_gives_asks_or_a_refusal(fields: dict[str, object], has_base: bool) -> None:
    for read, base in ((read_chat, CHAT), (read_completion, COMPLETION)):
        body = {**base, **fields} if has_base else fields
        try:
            raw = json.dumps(body, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return
        try:
            order = read(raw)
        except RequestError:
            continue
        assert len(order.asks) >= 1
        assert all(isinstance(each, Ask) for each in order.asks)


@given(st.binary())
def test_any_bytes_give_asks_or_a_refusal(raw: bytes) -> None:
    for read in (read_chat, read_completion):
        with pytest.raises(RequestError):
            read(raw)
