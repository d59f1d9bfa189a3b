"""Targets of the fuzzer that read what HTTP clients send, and what is told to them."""

import contextlib
import json
from collections.abc import Callable
from typing import Final

from rbee.ask import TokenLogprob
from rbee.errors import RequestError
from rbee.supervisor.access.api_key import id_of, is_key_id
from rbee.supervisor.access.authorization import NoCredentialError, read_bearer
from rbee.supervisor.access.principal import Role
from rbee.supervisor.api.admission import check_correlation_id, check_host, check_origin
from rbee.supervisor.api.chat_body import read_chat
from rbee.supervisor.api.chat_shape import ChatShape
from rbee.supervisor.api.completion_body import read_completion
from rbee.supervisor.api.completion_shape import CompletionShape
from rbee.supervisor.api.deadlines import read_remaining
from rbee.supervisor.api.key_body import read_key_order, read_rotation
from rbee.supervisor.http_server import HttpLimits
from rbee.supervisor.http_server.guard import find_fault
from rbee.supervisor.lane import Machine, Request
from rbee.supervisor.lane.head import read_head
from rbee.wire import (
    Delta,
)
from tests.lane.corpus import CORPUS
from tests.security.target import JSON_WORDS, Target, words

KEY: Final = b"rbee_zR9NbWiY_j1RuSf9k69el2R5H4uaXBbdCOiwFU5sTCjLCZliJavx3lQxcG"


# --- HTTP


def _head(data: bytes) -> None:
    fault = find_fault(data, HttpLimits())
    if fault is None and data.endswith(b"\r\n\r\n"):
        read_head(data)


def _lane(data: bytes) -> None:
    machine = Machine(HttpLimits(), lambda _method, _target: True, 4096, lambda: b"today")
    half = len(data) // 2
    for part in (data[:half], data[half:]):
        machine.receive(part)
        for _ in range(len(data) + 1):
            event = machine.next_event()
            if event is None:
                break
            if isinstance(event, Request):
                machine.answer(200, [], b"ok")


def _headers(data: bytes) -> None:
    """Values of the headers that are read, one a line, as HTTP hands them on."""
    values = [line.decode("latin-1") for line in data.split(b"\n")[:4]]
    readers: list[Callable[[], object]] = [
        lambda: check_correlation_id(values[:2]),
        lambda: check_host(values[:1], ("box.lan",)),
        lambda: check_origin(values[:1], values[1:2], ("box.lan",)),
        lambda: read_remaining(
            values[:1], values[1:2], default_s=3, highest_s=9, now_unix_s=1_900_000_000
        ),
    ]
    for read in readers:
        with contextlib.suppress(RequestError):
            read()


def _key(data: bytes) -> None:
    """The credential in a request's headers: whatever is let through has a key's form."""
    values = [line.decode("latin-1") for line in data.split(b"\n")]
    token = read_bearer(values[:2], values[2:])
    found = id_of(token)
    assert found is None or is_key_id(found)


def _key_body(data: bytes) -> None:
    with contextlib.suppress(RequestError):
        assert read_rotation(data) >= 0
    assert read_key_order(data, 1_900_000_000.0).role in Role


def _chat_body(data: bytes) -> None:
    assert read_chat(data).asks


def _completion_body(data: bytes) -> None:
    assert read_completion(data).asks


# --- streams


_CHAT_ORDER: Final = read_chat(
    b'{"model":"m","messages":[{"role":"user","content":"a"}],"logprobs":true,"top_logprobs":2}'
)
_TEXT_ORDER: Final = read_completion(b'{"model":"m","prompt":"a","logprobs":2}')


def _sse(data: bytes) -> None:
    """Whatever an engine says comes back as it was, by whatever reader of lines."""
    text = data.decode("utf-8", "replace")
    logprob = TokenLogprob(1, data[:64], -1.0, ((2, data[-16:], -2.0),))
    deltas = (Delta(1, 0, (1,), text), Delta(1, 1, (2,), text, "stop", 0, (logprob,)))
    chat, plain = ChatShape("chatcmpl-1", 1, _CHAT_ORDER), CompletionShape("cmpl-1", 1, _TEXT_ORDER)
    told = [_events(chat.chunk(0, delta)) for delta in deltas]
    contents = [c["choices"][0]["delta"].get("content", "") for chunks in told for c in chunks]
    assert "".join(contents) == text * 2
    told = [_events(plain.chunk(0, delta)) for delta in deltas]
    assert "".join(c["choices"][0]["text"] for chunks in told for c in chunks) == text * 2


def _events(payload: bytes) -> list[dict[str, list[dict[str, dict[str, str] | str]]]]:
    blocks = payload.split(b"\n\n")
    assert blocks.pop() == b""
    for block in blocks:
        assert block.startswith(b"data: ")
        assert len(block.decode().splitlines()) == 1
    return [json.loads(block[6:]) for block in blocks]


_HTTP_WORDS: Final = [
    *words("GET POST /v1/models HTTP/1.1 Host: Content-Length: Transfer-Encoding: chunked close"),
    b"\r\n", b"\r\n\r\n", b"\r\n ", b": ", b"Content-Length: 3\r\n", b"Host: localhost\r\n",
]  # fmt: skip


HTTP_TARGETS: Final = (
    Target("http-head", _head, list(CORPUS.values()), _HTTP_WORDS),
    Target("lane", _lane, list(CORPUS.values()), _HTTP_WORDS),
    Target(
        "headers", _headers,
        [b"localhost:7233\nhttp://localhost:7233\n5\n2030-03-17T17:47:00Z", b"[::1]:80\nid-1"],
        words("http:// https:// localhost 127.0.0.1 [::1] 2030-01-01T00:00:00+01:00 1e3 nan"),
    ),
    Target(
        "credential", _key,
        [b"Bearer " + KEY, b"bearer  abc.def.ghi", b"Bearer a\nBearer b\nkey"],
        [b"Bearer ", b"rbee_", b"_", b"=", b"Basic ", KEY], (NoCredentialError,),
    ),
    Target(
        "key-body", _key_body,
        [
            (b'{"role":"user","name":"a","models":["m"],"expires":"2031-01-01T00:00:00Z",'
            b'"limits":{"requests_per_minute":3}}'),
            b'{"grace_s":5}',
        ],
        [*JSON_WORDS, *words('"role": "limits": "expires": "models":')], (RequestError,),
    ),
    Target(
        "chat-body", _chat_body,
        [
            b'{"model":"m","messages":[{"role":"user","content":"hi"}],"n":2,"stop":["a"]}',
            (b'{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"a"}]}],'
            b'"response_format":{"type":"json_schema","json_schema":{"name":"a","schema":{}}}}'),
        ],
        [*JSON_WORDS, *words('"messages": "role": "content": "stop": "logit_bias":')],
        (RequestError,),
    ),
    Target(
        "completion-body", _completion_body,
        [b'{"model":"m","prompt":["a","b"],"logprobs":2}', b'{"model":"m","prompt":[[1,2],[3]]}'],
        [*JSON_WORDS, b'"prompt":'], (RequestError,),
    ),
    Target(
        "sse", _sse, [b"hello", "a\u2028b\u0085c\r\n\n\ud7ff".encode(), b"data: [DONE]\n\n"],
        [b"\n\n", b"data: ", b"\r", b"\xe2\x80\xa9", b"\xc2\x85", b"\x0b", b"\x0c", b"\x1c"],
    ),
)  # fmt: skip
