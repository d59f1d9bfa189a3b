"""The local protocol's messages: what goes in comes out, and nothing else gets in."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.errors import RemoteProtocolError
from rbee.local_wire import (
    VERSION,
    End,
    FromServer,
    Head,
    Part,
    Request,
    decode_answer,
    decode_request,
    encode_answer,
    encode_request,
)

REQUEST = Request("POST", "/v1/completions", "Bearer k", "cid", "1.5", "2030-01-01T00:00:00Z")


def test_a_request_comes_out_as_it_went_in() -> None:
    frames = encode_request(REQUEST, b"{}")
    assert frames[2] == b"{}"
    assert decode_request(frames) == REQUEST


@pytest.mark.parametrize("message", [Head(200, {"a": "b"}), Part(b"\x00\xff"), End()])
def test_an_answer_comes_out_as_it_went_in(message: FromServer) -> None:
    assert decode_answer(encode_answer(message)) == message


@given(st.lists(st.binary(max_size=200), max_size=4), st.booleans())
def test_any_frames_give_a_message_or_a_protocol_error(
    frames: list[bytes], has_version: bool
) -> None:
    if has_version:
        frames = [VERSION, *frames]
    for decode, kind in ((decode_request, Request), (decode_answer, Head | Part | End)):
        try:
            assert isinstance(decode(frames), kind)
        except RemoteProtocolError:
            continue


@pytest.mark.parametrize(
    "changed",
    [
        {"method": "get"},
        {"method": ""},
        {"path": "v1"},
        {"path": "/a b"},
        {"path": "/" + "a" * 1024},
        {"path": "/\u00e9"},
        {"authorization": "Bearer k\r\nHost: x"},
        {"correlation_id": "a\0"},
        {"timeout": 5},
        {"deadline": "\u2028"},
        {"host": "example.com"},
        {"authorization": msgspec.msgpack.Ext(1, b"")},
    ],
)
def test_a_request_of_another_form_is_a_protocol_error(changed: dict[str, object]) -> None:
    fields = {**msgspec.to_builtins(REQUEST), **changed}
    with pytest.raises(RemoteProtocolError):
        decode_request([VERSION, msgspec.msgpack.encode(fields), b""])
