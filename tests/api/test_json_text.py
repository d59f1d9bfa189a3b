"""JSON from outside: what is refused, and that nothing but a refusal comes of it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.errors import ErrorCode, RequestError
from rbee.supervisor.api.json_text import CONTAINERS_MAX, DEPTH_MAX, decode_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text() | st.floats(-1e9, 1e9),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"{",
        b"nope",
        b"{} {}",
        b"{'a': 1}",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1e400}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a": 1, "a": 1}',
        b'{"a": 1, "\\u0061": 1}',
        b'[{"b": [{"a": 1, "a" \n : 2}]}]',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1),
        b"[" + b"[]," * CONTAINERS_MAX + b"[]]",
        b"[" + b"{}," * CONTAINERS_MAX + b"{}]",
        b'"\\ud800"',
        b'"\\ud800x"',
        b'"\\ud800\\ud800"',
        b'"\\udc00"',
        b'{"\\udfff": 1}',
        b'"\xed\xa0\x80"',
        b'"\xff"',
        b'"\x01"',
        b"\xef\xbb\xbf{}",
        '{"a": 1}'.encode("utf-16"),
        '{"a": 1}'.encode("utf-16-le"),
        '{"a": 1}'.encode("utf-32-be"),
    ],
    ids=lambda raw: repr(raw[:40]),
)
def test_what_is_no_strict_json_is_refused(raw: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        decode_json(raw)
    assert caught.value.code is ErrorCode.INVALID_JSON


def test_a_refusal_tells_the_place_and_never_the_text() -> None:
    with pytest.raises(RequestError, match="not JSON at byte 8"):
        decode_json(b'{"key": secret}')
    with pytest.raises(RequestError, match="not UTF-8 at byte 17"):
        decode_json(b'{"key": "secret: \xff"}')


@pytest.mark.parametrize(
    "text",
    [
        '{"a": "\\"a\\": 1, \\"a\\": 1"}',
        '{"a\\\\": 1, "a\\"": 2}',
        '["a", "a", "a:", ":"]',
        '{"a": {"a": {"a": "a"}}, "b" : [{"a":1}, {"a":1}]}',
        "[" * DEPTH_MAX + "]" * DEPTH_MAX,
        '"\\ud83d\\ude00"',
    ],
)
def test_what_only_looks_like_a_duplicate_key_is_taken(text: str) -> None:
    assert decode_json(text.encode()) == json.loads(text)


def test_brackets_in_a_text_are_no_objects_or_arrays() -> None:
    text = "[{" * CONTAINERS_MAX + '\\"[{'
    assert decode_json(json.dumps([text, {text: text}]).encode()) == [text, {text: text}]


@given(JSON, st.booleans(), st.sampled_from([None, 2]))
def test_every_json_text_is_read_as_it_was_written(
    value: object, ascii_only: bool, indent: int | None
) -> None:
    raw = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    try:
        encoded = raw.encode()
    except UnicodeEncodeError:
        return
    assert decode_json(encoded) == json.loads(raw)


@given(st.binary() | st.text(alphabet='{}[]":,\\ua0\ud8ff 1e-', max_size=40).map(
    lambda text: text.encode("utf-8", "surrogatepass")
))  # fmt: skip
def test_any_bytes_give_a_value_or_a_refusal(raw: bytes) -> None:
    try:
        value = decode_json(raw)
    except RequestError:
        return
    assert json.loads(raw) == value
