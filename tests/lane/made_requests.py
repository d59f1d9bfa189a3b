"""Requests made by chance, for two faces to be compared by: most are good, each may be odd."""

import json
import random
from typing import Any, Final

from tests.lane.mutations import _SPICE, compose

_PATHS: Final = [
    *["/v1/chat/completions"] * 12, *["/v1/completions"] * 6, *["/v1/models"] * 3,
    "/health/live", "/health/ready", "/health/startup", "/v1/models/bee-tiny", "/v1/models/none",
    "/v1/models/org/large", "/", "/v1", "/v1/chat/completions/", "/v1/chat/completions?a=b",
    "/v1/%63hat/completions", "//v1/models", "/v1//models", "/V1/models", "/v1/rbee/workers",
    "/v1/models?x=%zz", "/health/live#x", "/v1/completions%00", "/v1/embeddings", "*",
]  # fmt: skip
# From here on it is a matter of moments whether a server has all of it when it answers.
LARGE_BYTES: Final = 60_000

_LAST: Final = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_METHODS: Final = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "POST", "FOO", "get"]

# Header lines that may stand in any request, good and bad.
_HEADERS: Final = [
    "Accept: */*", "accept-encoding: gzip, br", "User-Agent: a test\t/1", "Authorization: Bearer x",
    "X-Correlation-ID: mine-1", "x-correlation-id: UPPER.lower_-9", "X-Correlation-ID: " + "a" * 64,
    "X-Correlation-ID: " + "a" * 65, "X-Correlation-ID:", "X-Correlation-ID: a b",
    "X-Correlation-ID: one\r\nX-Correlation-ID: two", "X-Correlation-ID: \xe4",
    "X-Request-Timeout: 30", "X-Request-Timeout: 0.5", "X-Request-Timeout: 0",
    "X-Request-Timeout: -1", "X-Request-Timeout: soon", "X-Request-Timeout: 9999999999",
    "X-Request-Timeout: 0.000000001", "X-Request-Timeout: 5\r\nX-Request-Timeout: 6",
    "X-Request-Timeout: nan", "X-Request-Timeout: 1e3",
    "X-Request-Deadline: 2030-03-17T17:47:00Z", "X-Request-Deadline: 2030-03-17T18:47:00+01:00",
    "X-Request-Deadline: 2020-01-01T00:00:00Z", "X-Request-Deadline: 2030-02-31T00:00:00Z",
    "X-Request-Deadline: 2030-03-17 17:47:00", "X-Request-Deadline: 2030-03-17T17:47:00.123456789z",
    "Origin: http://localhost:7233", "Origin: http://localhost", "Origin: null",
    "Origin: https://elsewhere.example", "Origin: http://localhost:7233\r\nOrigin: http://a",
    "Content-Encoding: gzip", "Content-Encoding: identity", "Content-Encoding:",
    "Connection: keep-alive", "Connection: close", "Connection: x, Close", "Connection: upgrade",
    "Upgrade: h2c", "Upgrade: websocket", "Expect: 100-continue", "Expect: wonders",
    "Transfer-Encoding: gzip", "Content-Length: 3", "X-Odd: a\x7f", "X-Odd:\ta\t", "X-Odd : a",
    "X Odd: a", "X-Folded: a\r\n b", "Te: trailers", "Keep-Alive: timeout=5", "Cookie: a=b; c=d",
    "X-Long: " + "y" * 5000, "X-Longer: " + "y" * 17_000,
]  # fmt: skip
_HOSTS: Final = [
    *["localhost"] * 20, "localhost:7233", "127.0.0.1", "[::1]:80", "LOCALHOST",
    "elsewhere.example", "localhost.evil.example", "", "localhost/x", "a b", "127.0.0.1:99999999",
    "0x7f.1", "localhost.",
]  # fmt: skip
_TYPES: Final = [
    *["application/json"] * 12, "", "", "application/json; charset=utf-8", "Application/JSON",
    "application/json; charset=latin-1", "text/plain", "application/x-www-form-urlencoded",
    "application/json, text/plain", "multipart/form-data; boundary=x",
]  # fmt: skip

_MESSAGES: Final[list[Any]] = [
    [{"role": "user", "content": "hello"}],
    [{"role": "user", "content": "[fail-first]"}],
    [{"role": "user", "content": "[fail-later]"}],
    [{"role": "user", "content": "[full]"}],
    [{"role": "user", "content": "\u00fc \u2028 \U0001f41d \x7f \u0085"}],
    [{"role": "system", "content": "be"},
     {"role": "user", "content": [{"type": "text", "text": "a"}]}],
    [], "text", None, [{"role": "robot", "content": "x"}], [{"role": "user"}], [1],
    [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
    [{"role": "tool", "content": "x", "tool_call_id": "1"}],
]  # fmt: skip
_PROMPTS: Final[list[Any]] = [
    "hello", ["a", "b"], [1, 2, 3], [[1], [2, 3]], "[full]", "[fail-later]", [], "", None, 7,
    ["a", 1], [-1],
]  # fmt: skip
_FIELDS: Final[list[tuple[str, list[Any]]]] = [
    ("stream", [True, True, True, False, "yes", None, 1]),
    ("stream_options", [{"include_usage": True}, {"include_usage": False}, {}, None, {"x": 1}]),
    ("n", [1, 2, 3, 16, 17, 0, -1, 1.0, "2", None]),
    ("temperature", [0, 1, 0.7, 2, 2.1, -0.1, "hot", None, True]),
    ("top_p", [1, 0.1, 0, 1.1]), ("top_k", [-1, 0, 5, 1.5]),
    ("seed", [1, -1, 2**63 - 1, 2**63, 0.5]),
    ("max_tokens", [1, 5, 0, -1, 1e3, 10**30]), ("max_completion_tokens", [1, 5, 7]),
    ("stop", ["x", ["a", "b"], [], "", ["a"] * 17, [1], "y" * 300, None]),
    ("logprobs", [True, False, 3, 0, 21, "x"]), ("top_logprobs", [0, 2, 20, 21]),
    ("logit_bias", [{"1": 5}, {"x": 1}, {"1": 101}, {"1": 1, "01": 2}]),
    ("frequency_penalty", [0, 1, 3]), ("presence_penalty", [0, -2]),
    ("response_format", [{"type": "text"}, {"type": "json_object"}, {"type": "json_schema"}, "x",
                         {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}]),
    ("echo", [True, False]), ("suffix", ["x", None]), ("best_of", [1, 2]), ("user", ["me", 1]),
    ("tools", [[], [{"type": "function", "function": {"name": "f"}}]]), ("tool_choice", ["none"]),
    ("store", [True]), ("unknown", [1]), ("nul\x00", ["\x00"]), ("metadata", [{"a": "b"}]),
]  # fmt: skip
_BROKEN_BODIES: Final = [
    b"", b"{", b"null", b"[]", b'"x"', b"{}", b"{}{}", b"\xef\xbb\xbf{}", b"\xff\xfe{\x00}\x00",
    b'{"model":NaN}', b'{"model":Infinity}', b'{"temperature":1e400,"model":"bee-tiny"}',
    b'{"model":"bee-tiny","model":"none","prompt":"x"}', b'{"model":"\xff"}',
    b'{"model":"bee-tiny","prompt":"\\ud800"}', b'{"model":"bee-tiny","prompt":"a\nb"}',
    b"[" * 30_000, b'{"a":' * 3000 + b"1" + b"}" * 3000, b'{"model":"bee-tiny","prompt":"x",}',
    b'{"model":"bee-tiny","prompt":"x","seed":' + b"9" * 5000 + b"}", b" " * 70_000, b"\0",
    b'{"model":"bee-tiny","prompt":"' + b"z" * 60_000 + b'"}', b"model=bee-tiny&prompt=x",
]  # fmt: skip


def make(chance: random.Random) -> bytes:
    """One connection's worth of requests; the last one ends it, if it is reached."""
    parts = [_request(chance) for _ in range(chance.choice([1, 1, 1, 2, 3]))]
    if chance.random() < 0.05:
        parts.append(compose(chance))
    if sum(map(len, parts)) > LARGE_BYTES:
        parts = [max(parts, key=len)]
    sent = b"".join(parts)
    if chance.random() < 0.12:
        sent = _spoil(chance, sent)
    return sent + _LAST


def _request(chance: random.Random) -> bytes:
    path = chance.choice(_PATHS)
    generates = path.startswith(("/v1/chat", "/v1/comp"))
    method = "POST" if generates else "GET"
    if chance.random() < 0.08:
        method = chance.choice(_METHODS)
    version = "HTTP/1.1" if chance.random() < 0.97 else chance.choice(["HTTP/1.0", "HTTP/2.0"])
    lines = [f"{method} {path} {version}"]
    if chance.random() < 0.99:
        lines.append(f"Host: {chance.choice(_HOSTS)}")
    lines += chance.sample(_HEADERS, chance.choice([0, 0, 0, 1, 1, 2]))
    has_body = generates or chance.random() < 0.02
    return _frame(chance, lines, _body(chance, path) if has_body else None)


def _frame(chance: random.Random, lines: list[str], body: bytes | None) -> bytes:
    if body is None:
        return "\r\n".join([*lines, "", ""]).encode("latin-1")
    if content_type := chance.choice(_TYPES):
        lines.append(f"Content-Type: {content_type}")
    way = chance.random()
    if way < 0.88:
        lines.append(chance.choice(["Content-Length: ", "content-length:"]) + str(len(body)))
        framed = body
    elif way < 0.97:
        lines.append("Transfer-Encoding: chunked")
        half = len(body) // 2
        parts = [part for part in (body[:half], body[half:]) if part]
        framed = b"".join([b"%x\r\n%b\r\n" % (len(part), part) for part in parts]) + b"0\r\n\r\n"
    else:  # a length that is not true
        lines.append(f"Content-Length: {max(0, len(body) + chance.choice([-1, 1, 40]))}")
        framed = body
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + framed


def _body(chance: random.Random, path: str) -> bytes:
    if chance.random() < 0.12:
        return chance.choice(_BROKEN_BODIES)
    body: dict[str, Any] = {"model": "bee-tiny"}
    if chance.random() < 0.08:
        body["model"] = chance.choice(["org/large", "none", "", 1, None, "a b", "../x", "m" * 200])
    usual = 0 if chance.random() < 0.6 else -1
    if "chat" in path:
        body["messages"] = _MESSAGES[0] if usual == 0 else chance.choice(_MESSAGES)
    else:
        body["prompt"] = _PROMPTS[0] if usual == 0 else chance.choice(_PROMPTS)
    if chance.random() < 0.03:
        del body[chance.choice(list(body))]
    for field, values in chance.sample(_FIELDS, chance.choice([0, 1, 1, 2, 3])):
        body[field] = values[0] if chance.random() < 0.5 else chance.choice(values)
    encoded = json.dumps(body, ensure_ascii=chance.random() < 0.5).encode()
    if chance.random() < 0.03:
        encoded += b" " * chance.choice([100, 66_000, 66_000, 1_100_000])
    return encoded


def _spoil(chance: random.Random, sent: bytes) -> bytes:
    spoilt = bytearray(sent)
    end = max(1, sent.find(b"\r\n\r\n"))
    place = chance.randrange(end)
    match chance.randrange(3):
        case 0:
            spoilt[place:place] = chance.choice(_SPICE)
        case 1:
            spoilt[place] = chance.randrange(256)
        case _:
            del spoilt[place : place + chance.randint(1, 5)]
    return bytes(spoilt)
