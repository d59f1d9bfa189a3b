"""Which requests are refused at their head, and how (RELIABILITY A4: ambiguous framing)."""

import json

import pytest
import trio

from rbee.errors import ErrorCode
from rbee.supervisor.http_server.guard import error_answer, find_fault
from rbee.supervisor.http_server.limits import HttpLimits
from tests.http_server.harness import echo, start

POST = b"POST / HTTP/1.1\r\nHost: rbee\r\n"
CHUNKS = b"\r\n\r\n3\r\nabc\r\n0\r\n\r\n"

REFUSED = {
    "length and encoding": (
        400, POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked" + CHUNKS,
    ),
    "encoding and length": (
        400, POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3" + CHUNKS,
    ),
    "encoding twice": (
        400, POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked" + CHUNKS,
    ),
    "encoding listed twice": (501, POST + b"Transfer-Encoding: chunked, chunked" + CHUNKS),
    "encoding before chunked": (501, POST + b"Transfer-Encoding: gzip, chunked" + CHUNKS),
    "encoding misspelt": (501, POST + b"Transfer-Encoding: xchunked" + CHUNKS),
    "encoding with a space": (400, POST + b"Transfer-Encoding : chunked" + CHUNKS),
    "encoding with a vertical tab": (501, POST + b"Transfer-Encoding: \x0bchunked" + CHUNKS),
    "encoding in HTTP/1.0": (400, b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked" + CHUNKS),
    "two lengths": (400, POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc"),
    "the same length twice": (400, POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
    "a list of lengths": (400, POST + b"Content-Length: 3, 3\r\n\r\nabc"),
    "a length with a plus": (400, POST + b"Content-Length: +3\r\n\r\nabc"),
    "a negative length": (400, POST + b"Content-Length: -3\r\n\r\nabc"),
    "a hexadecimal length": (400, POST + b"Content-Length: 0x3\r\n\r\nabc"),
    "a length of 30 digits": (400, POST + b"Content-Length: " + b"9" * 30 + b"\r\n\r\nabc"),
    "an empty length": (400, POST + b"Content-Length:\r\n\r\nabc"),
    "CONNECT": (501, b"CONNECT rbee:80 HTTP/1.1\r\nHost: rbee\r\n\r\n"),
    "a method in lower case": (501, b"get / HTTP/1.1\r\nHost: rbee\r\n\r\n"),
    "an absolute target": (400, b"GET http://other/ HTTP/1.1\r\nHost: rbee\r\n\r\n"),
    "an asterisk for GET": (400, b"GET * HTTP/1.1\r\nHost: rbee\r\n\r\n"),
    "a relative target": (400, b"GET models HTTP/1.1\r\nHost: rbee\r\n\r\n"),
    "a target of 8193 bytes": (414, b"GET /" + b"a" * 8192 + b" HTTP/1.1\r\nHost: rbee\r\n\r\n"),
    "a target without end": (414, b"GET /" + b"a" * 9000),
    "101 headers": (431, b"GET / HTTP/1.1\r\nHost: rbee\r\n" + b"a: b\r\n" * 100 + b"\r\n"),
    "a header of 17 KiB": (
        431, b"GET / HTTP/1.1\r\nHost: rbee\r\na: " + b"b" * 17408 + b"\r\n\r\n",
    ),
    "headers without end": (431, b"GET / HTTP/1.1\r\nHost: rbee\r\na: " + b"b" * 17408),
    "a NUL in a header": (400, b"GET / HTTP/1.1\r\nHost: rbee\r\na: b\0c\r\n\r\n"),
    "a CR in a header": (400, b"GET / HTTP/1.1\r\nHost: rbee\r\na: b\rc\r\n\r\n"),
    "a bare LF in the head": (400, b"GET / HTTP/1.1\r\nHost: rbee\na: b\r\n\r\n"),
    "nothing but bare LF": (400, b"GET / HTTP/1.1\nHost: rbee\n\n"),
    "a folded header": (400, b"GET / HTTP/1.1\r\nHost: rbee\r\na: b\r\n c\r\n\r\n"),
    "a header without colon": (400, b"GET / HTTP/1.1\r\nHost: rbee\r\nnonsense\r\n\r\n"),
    "no host": (400, b"GET / HTTP/1.1\r\na: b\r\n\r\n"),
    "two hosts": (400, b"GET / HTTP/1.1\r\nHost: rbee\r\nHost: other\r\n\r\n"),
    "TLS": (400, bytes.fromhex("16030100c8010000c40303") + bytes(100)),
    "HTTP/2": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "HTTP/0.9": (400, b"GET /\r\n\r\n"),
    "HTTP/1.2": (505, b"GET / HTTP/1.2\r\nHost: rbee\r\n\r\n"),
    "an empty line first": (400, b"\r\nGET / HTTP/1.1\r\nHost: rbee\r\n\r\n"),
    "a negative chunk": (400, POST + b"Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n"),
    "a bad chunk footer": (400, POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcXX0\r\n\r\n"),
    "a chunk extension that ends in LF": (
        400, POST + b"Transfer-Encoding: chunked\r\n\r\n3;a\nabc\r\n0\r\n\r\n",
    ),
    "a WebSocket": (
        501, b"GET / HTTP/1.1\r\nHost: rbee\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ),
}  # fmt: skip

ANSWERED = {
    "plain": POST + b"Content-Length: 3\r\n\r\nabc",
    "chunked": POST + b"Transfer-Encoding: chunked" + CHUNKS,
    "chunked in capitals": POST + b"Transfer-Encoding: CHUNKED" + CHUNKS,
    "HTTP/1.0": b"POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc",
    "99 more headers": POST + b"a: b\r\n" * 98 + b"Content-Length: 3\r\n\r\nabc",
    "a target of 8192 bytes": b"POST /" + b"a" * 8191 + b" HTTP/1.1\r\nHost: rbee\r\n"
    b"Content-Length: 3\r\n\r\nabc",
    "an upgrade to h2c, which is ignored": POST + b"Connection: Upgrade, HTTP2-Settings\r\n"
    b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nContent-Length: 3\r\n\r\nabc",
}


@pytest.mark.parametrize(("status", "request_bytes"), REFUSED.values(), ids=REFUSED)
async def test_a4_request_that_can_be_misread_is_refused_and_its_connection_closed(
    status: int, request_bytes: bytes, nursery: trio.Nursery
) -> None:
    server = await start(nursery, echo)
    async with await server.connect() as client:
        await client.send(request_bytes)
        answer = await client.read_answer()
        assert answer.status == status
        assert answer.headers["connection"] == "close"
        assert set(answer.error) == {
            "message", "type", "code", "param", "details", "correlation_id",
        }  # fmt: skip
        assert answer.error["code"] == "invalid_request"
        await client.stream.send_eof()
        assert await client.read_all() == b""
    assert server.log.errors == []


@pytest.mark.parametrize("request_bytes", ANSWERED.values(), ids=ANSWERED)
async def test_request_at_the_limits_is_answered(
    request_bytes: bytes, nursery: trio.Nursery
) -> None:
    server = await start(nursery, echo)
    async with await server.connect() as client:
        await client.send(request_bytes)
        answer = await client.read_answer()
    assert (answer.status, answer.body) == (200, b"abc")


@pytest.mark.parametrize("request_bytes", ANSWERED.values(), ids=ANSWERED)
def test_no_fault_is_found_in_any_first_part_of_a_good_request(request_bytes: bytes) -> None:
    head = request_bytes.partition(b"\r\n\r\n")[0]
    for end in range(len(head) + 4):
        assert find_fault(request_bytes[:end], HttpLimits()) is None


def test_request_smuggled_behind_an_ambiguous_one_is_found_at_its_head() -> None:
    first = (
        b"POST / HTTP/1.1\r\nHost: rbee\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    fault = find_fault(first + b"0\r\n\r\nGET /admin HTTP/1.1\r\nHost: rbee\r\n\r\n", HttpLimits())
    assert fault is not None
    assert fault.status == 400


def test_error_answer_is_whole_and_has_an_id_of_its_own() -> None:
    head, _, body = error_answer(503, ErrorCode.QUEUE_FULL, "full", retry_after_s=1).partition(
        b"\r\n\r\n"
    )
    error = json.loads(body)["error"]
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 503 Service Unavailable",
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        b"retry-after: 1",
        b"x-correlation-id: " + error["correlation_id"].encode(),
        b"connection: close",
    ]
    assert error["type"] == "server_error"
    assert error["correlation_id"] not in error_answer(503, ErrorCode.QUEUE_FULL, "").decode()
