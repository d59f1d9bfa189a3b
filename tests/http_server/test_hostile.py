"""Finding 1: the connections that end stock hypercorn, sent to ours. The server answers on.

h2 is used to make what hostile clients send; the server speaks HTTP/1.1 only.
"""

from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
import trio

from tests.http_server.harness import GET, echo, say_ok, start, start_stream

ATTEMPTS = 30  # (g) is a race: stock hypercorn was dead at the third attempt

GOOD = [(":method", "GET"), (":path", "/"), (":authority", "rbee"), (":scheme", "http")]


class EndsEverything(BaseException):
    """As a native extension's panic: no `Exception`."""


def h2_client() -> h2.connection.H2Connection:
    config = h2.config.H2Configuration(
        validate_outbound_headers=False, normalize_outbound_headers=False
    )
    client = h2.connection.H2Connection(config)
    client.initiate_connection()
    return client


def data_after_an_early_answer() -> bytes:
    client = h2_client()
    client.send_headers(1, [(":method", "POST"), *GOOD[1:]])
    for _ in range(3):
        client.send_data(1, b"x" * 1000)
    return bytes(client.data_to_send())


def request_with(name: str, value: bytes) -> bytes:
    client = h2_client()
    headers = [(key.encode(), val.encode()) for key, val in GOOD if key != name]
    client.send_headers(1, [(name.encode(), value), *headers], end_stream=True)
    return bytes(client.data_to_send())


def connect_over_h2() -> bytes:
    client = h2_client()
    client.send_headers(1, [(":method", "CONNECT"), (":authority", "rbee:80")])
    return bytes(client.data_to_send())


def priority_flood() -> bytes:
    client = h2_client()
    for stream in range(1, 2201, 2):
        client.prioritize(stream, weight=16)
    return bytes(client.data_to_send())


H2 = {
    "a: DATA after an early answer": data_after_an_early_answer(),
    "b: a path that is not ASCII": request_with(":path", b"/\xff\xfe"),
    "c: a method that is not ASCII": request_with(":method", b"G\xffT"),
    "d: CONNECT": connect_over_h2(),
    "e: more than 1000 PRIORITY frames": priority_flood(),
}

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: rbee\r\nConnection: Upgrade, HTTP2-Settings\r\n"
    b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
)


@pytest.mark.parametrize("frames", H2.values(), ids=H2)
async def test_finding_1_http2_without_asking_is_refused_and_others_are_served(
    frames: bytes, nursery: trio.Nursery
) -> None:
    server = await start(nursery, say_ok)
    async with await server.connect() as client:
        await client.send(frames)
        assert (await client.read_answer()).status == 505
        await client.stream.send_eof()
        assert await client.read_all() == b""
    assert await server.answers()
    assert server.log.errors == []


@pytest.mark.parametrize("frames", H2.values(), ids=H2)
async def test_finding_1_an_upgrade_to_http2_is_ignored_and_others_are_served(
    frames: bytes, nursery: trio.Nursery
) -> None:
    server = await start(nursery, say_ok)
    async with await server.connect() as client:
        await client.send(UPGRADE)
        assert (await client.read_answer()).status == 200
        await client.send(frames)
        assert (await client.read_answer()).status == 505
    assert await server.answers()
    assert server.log.errors == []


@pytest.mark.parametrize("name", [b"Sec-WebSocket-Protocol", b"Sec-WebSocket-Extensions"])
async def test_finding_1f_a_websocket_is_refused_and_others_are_served(
    name: bytes, nursery: trio.Nursery
) -> None:
    server = await start(nursery, say_ok)
    async with await server.connect() as client:
        await client.send(
            b"GET / HTTP/1.1\r\nHost: rbee\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            + name + b": \xff\xfe\r\n\r\n"
        )  # fmt: skip
        assert (await client.read_answer()).status == 501
    assert await server.answers()
    assert server.log.errors == []


async def test_finding_1g_a_malformed_chunk_during_the_answer_cuts_that_answer_only(
    nursery: trio.Nursery,
) -> None:
    async def answer_while_receiving(scope: Any, receive: Any, send: Any) -> None:
        await start_stream(scope, send)
        for _ in range(50):
            await send({"type": "http.response.body", "body": bytes(10_000), "more_body": True})

    async def app(scope: Any, receive: Any, send: Any) -> None:
        is_victim = scope["method"] == "POST"
        await (answer_while_receiving if is_victim else say_ok)(scope, receive, send)

    server = await start(nursery, app)
    for _ in range(ATTEMPTS):
        async with await server.connect() as client:
            await client.send(
                b"POST / HTTP/1.1\r\nHost: rbee\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
            )
            await client.read_head()
            await client.send(b"3\r\nabcXX0\r\n\r\n")
            assert not (await client.read_all()).endswith(b"0\r\n\r\n")
    assert await server.answers()
    assert server.log.errors == []


@pytest.mark.parametrize(
    "failure",
    [
        ValueError("prompt: my secret"),
        EndsEverything("prompt: my secret"),
        SystemExit(3),
        BaseExceptionGroup("prompt", [EndsEverything("my secret"), KeyError("my secret")]),
    ],
    ids=lambda failure: type(failure).__name__,
)
@pytest.mark.parametrize("when", ["before", "held", "after"])
async def test_whatever_an_app_raises_ends_its_own_connection_only(
    failure: BaseException, when: str, nursery: trio.Nursery
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != "/fail":
            await say_ok(scope, receive, send)
            return
        if when == "held":
            await send({"type": "http.response.start", "status": 200, "headers": []})
        if when == "after":
            await start_stream(scope, send)
        raise failure

    server = await start(nursery, app)
    async with await server.connect() as other, await server.connect() as client:
        await other.send(GET)
        await other.read_answer()
        await client.send(b"GET /fail HTTP/1.1\r\nHost: rbee\r\n\r\n")
        status, _ = await client.read_head()
        assert status == (200 if when == "after" else 500)
        assert b"my secret" not in (rest := await client.read_all())
        assert when != "after" or rest == b""  # no last chunk: the client sees that it was cut
        await other.send(GET)
        assert (await other.read_answer()).status == 200
    assert server.log.errors == ["request_failed"]
    assert "my secret" not in str(server.log.lines)
    assert "test_hostile.py" in server.log.of("request_failed")[0]["at"]


async def test_a_failure_in_the_server_itself_ends_one_connection_only(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await start(nursery, say_ok)
    async with await server.connect() as other, await server.connect() as client:
        await other.send(GET)
        await other.read_answer()
        with monkeypatch.context() as patch:
            patch.setattr(
                "rbee.supervisor.http_server.protocol.Http1Protocol.proceed", _fail, raising=True
            )
            await client.send(GET)
            assert await client.read_all() == b""
        await other.send(GET)
        assert (await other.read_answer()).status == 200
    assert server.log.errors == ["connection_failed"]


async def _fail(_: object) -> None:
    raise EndsEverything


async def test_ten_thousand_tiny_chunks_do_not_keep_others_waiting(nursery: trio.Nursery) -> None:
    server = await start(nursery, echo)
    async with await server.connect() as hostile, await server.connect() as other:
        await hostile.send(b"POST / HTTP/1.1\r\nHost: rbee\r\nTransfer-Encoding: chunked\r\n\r\n")
        nursery.start_soon(hostile.send, b"1\r\na\r\n" * 10_000 + b"0\r\n\r\n")
        await other.send(b"POST / HTTP/1.1\r\nHost: rbee\r\nContent-Length: 0\r\n\r\n")
        with trio.fail_after(0.5):
            assert (await other.read_answer()).status == 200
        assert (await hostile.read_answer()).body == b"a" * 10_000
