"""The direct writer: streams without waiting, in order, and drops who does not read."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from rbee.supervisor.http_server import DirectWriter
from tests.http_server.harness import (
    AT_ONCE_S,
    GET,
    MOMENT_S,
    Client,
    Server,
    end_stream,
    say_ok,
    start,
    start_stream,
)

PART = b"x" * 10_000


class Streamed:
    """An app that streams one answer as a test tells it to, and keeps what the writer said."""

    def __init__(self, write: Callable[[DirectWriter], Awaitable[None]] | None = None) -> None:
        self.writer: DirectWriter | None = None
        self.broken: list[str] = []
        self.has_started = trio.Event()
        self.was_broken = trio.Event()
        self.is_done = trio.Event()
        self.has_ended = trio.Event()
        self._write = write

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/plain":
            await say_ok(scope, receive, send)
            return
        self.writer = await start_stream(scope, send)
        assert self.writer is not None
        self.writer.on_broken = self._note_broken
        self.has_started.set()
        if self._write is not None:
            await self._write(self.writer)
        else:
            await self.is_done.wait()
        await self.writer.drain()
        await end_stream(send)
        self.has_ended.set()

    def _note_broken(self, reason: str) -> None:
        self.broken.append(reason)
        self.was_broken.set()
        self.is_done.set()

    async def open(self, server: Server) -> tuple[Client, DirectWriter]:
        client = await server.connect()
        await client.send(GET)
        status, headers = await client.read_head()
        assert (status, headers["transfer-encoding"]) == (200, "chunked")
        assert self.writer is not None
        return client, self.writer


async def write_ten(writer: DirectWriter) -> None:
    for number in range(10):
        writer.write_nowait(b"data: %d\n\n" % number)
        await trio.lowlevel.checkpoint()


async def test_each_write_is_a_chunk_and_the_connection_serves_the_next_stream(
    nursery: trio.Nursery,
) -> None:
    server = await start(nursery, Streamed(write_ten))
    async with await server.connect() as client:
        for _ in range(3):
            await client.send(GET)
            answer = await client.read_answer()
            assert answer.chunks == [b"data: %d\n\n" % number for number in range(10)]
        await client.send(b"GET /plain HTTP/1.1\r\nHost: rbee\r\n\r\n")
        assert (await client.read_answer()).body == b"ok"
    assert server.log.errors == []


async def test_the_head_leaves_before_anything_is_written_and_each_write_at_once(
    nursery: trio.Nursery,
) -> None:
    app = Streamed()
    client, writer = await app.open(await start(nursery, app))
    async with client:
        for payload in (b"first", b"second"):
            writer.write_nowait(payload)  # from another task than the app's
            assert await client.read_chunk() == payload
        app.is_done.set()
        assert await client.read_chunk() == b""


async def test_an_empty_write_does_not_end_the_answer(nursery: trio.Nursery) -> None:
    app = Streamed()
    client, writer = await app.open(await start(nursery, app))
    async with client:
        writer.write_nowait(b"")
        writer.write_nowait(b"more")
        assert await client.read_chunk() == b"more"


async def test_what_the_kernel_does_not_take_is_parked_and_sent_on_in_order(
    nursery: trio.Nursery,
) -> None:
    app = Streamed()
    client, writer = await app.open(await start(nursery, app, parked_bytes_max=100_000_000))
    async with client:
        count = 0
        while writer.parked_bytes < 1_000_000:
            writer.write_nowait(b"%07d" % count * 1000)
            count += 1
        app.is_done.set()
        for number in range(count):
            assert await client.read_chunk() == b"%07d" % number * 1000
        assert await client.read_chunk() == b""
        assert (writer.parked_bytes, writer.broken, app.broken) == (0, None, [])
        await client.send(b"GET /plain HTTP/1.1\r\nHost: rbee\r\n\r\n")
        assert (await client.read_answer()).body == b"ok"


async def test_writes_and_sends_keep_their_order(nursery: trio.Nursery) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        writer = await start_stream(scope, send)
        for number in range(50):
            writer.write_nowait(b"%d" % (2 * number) * 5000)
            body = b"%d" % (2 * number + 1) * 5000
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await end_stream(send)

    server = await start(nursery, app)
    async with await server.connect() as client:
        await client.send(GET)
        chunks = (await client.read_answer()).chunks
    assert chunks == [b"%d" % number * 5000 for number in range(100)]


async def test_a_client_over_the_bound_is_a_slow_client_and_is_cut(nursery: trio.Nursery) -> None:
    app = Streamed()
    server = await start(nursery, app, parked_bytes_max=50_000, send_deadline_s=60)
    client, writer = await app.open(server)
    async with client:
        written = 0
        while writer.broken is None:
            writer.write_nowait(PART)
            written += len(PART)
            assert written < 20_000_000
            await trio.lowlevel.checkpoint()  # so that what is parked is waited with already
        assert app.broken == ["slow_client"]  # said before `write_nowait` returned
        writer.write_nowait(PART)
        assert app.broken == ["slow_client"]
        with trio.fail_after(AT_ONCE_S):
            await app.has_ended.wait()
        with pytest.raises(trio.BrokenResourceError):  # reset: the kernel need not keep the rest
            await client.read(written)
    assert await _serves_others(server)
    assert server.log.errors == []


async def test_a_client_that_takes_nothing_until_the_deadline_is_a_slow_client(
    nursery: trio.Nursery,
) -> None:
    app = Streamed()
    server = await start(nursery, app, parked_bytes_max=100_000_000, send_deadline_s=MOMENT_S)
    client, writer = await app.open(server)
    async with client:
        while writer.parked_bytes == 0:
            writer.write_nowait(PART)
        with trio.fail_after(MOMENT_S + AT_ONCE_S):
            await app.has_ended.wait()
    assert app.broken == ["slow_client"]
    assert server.log.of("client_given_up")[0]["reason"] == "slow_client"
    assert await _serves_others(server)


@pytest.mark.parametrize("resets", [True, False], ids=["reset", "closed"])
async def test_a_client_that_goes_breaks_the_writer_at_once(
    resets: bool, nursery: trio.Nursery
) -> None:
    app = Streamed()
    server = await start(nursery, app)
    client, writer = await app.open(server)
    await (client.reset() if resets else client.stream.aclose())
    with trio.fail_after(AT_ONCE_S):
        await app.was_broken.wait()
        await app.has_ended.wait()
    assert (writer.broken, app.broken) == ("disconnected", ["disconnected"])
    writer.write_nowait(PART)
    assert server.log.errors == []


async def test_a_client_that_went_before_the_answer_is_told_when_the_app_asks(
    nursery: trio.Nursery,
) -> None:
    told: list[str] = []
    has_ended = trio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        writer = await start_stream(scope, send)
        writer.on_broken = told.append
        await end_stream(send)
        has_ended.set()

    server = await start(nursery, app)
    async with await server.connect() as client:
        await client.send(GET)
    with trio.fail_after(AT_ONCE_S):
        await has_ended.wait()
    assert told == ["disconnected"]


@pytest.mark.parametrize(
    "request_bytes",
    [b"GET / HTTP/1.0\r\n\r\n", b"HEAD / HTTP/1.1\r\nHost: rbee\r\nConnection: close\r\n\r\n"],
    ids=["HTTP/1.0", "HEAD"],
)
async def test_without_chunks_there_is_no_writer_and_send_does(
    request_bytes: bytes, nursery: trio.Nursery
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert await start_stream(scope, send) is None
        for part in (b"one ", b"two"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await end_stream(send)

    server = await start(nursery, app)
    async with await server.connect() as client:
        await client.send(request_bytes)
        status, _ = await client.read_head()
        assert status == 200
        assert await client.read_all() == (b"" if request_bytes.startswith(b"HEAD") else b"one two")
    assert server.log.errors == []


async def test_a_write_out_of_turn_is_dropped_and_logged_and_raises_nothing(
    nursery: trio.Nursery,
) -> None:
    writers: list[DirectWriter] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        writer = scope["extensions"]["rbee.direct"]
        writer.write_nowait(b"too early")
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        writer.write_nowait(b"into an answer of known length")
        await send({"type": "http.response.body", "body": b"ok"})
        writers.append(writer)

    server = await start(nursery, app)
    assert await server.answers()
    writers[0].write_nowait(b"too late")
    assert server.log.errors == ["direct_write_out_of_turn"] * 3


async def test_a_write_after_the_end_does_not_get_into_the_next_answer(
    nursery: trio.Nursery,
) -> None:
    app = Streamed(write_ten)
    server = await start(nursery, app)
    async with await server.connect() as client:
        await client.send(GET)
        await client.read_answer()
        await app.has_ended.wait()
        assert app.writer is not None
        app.writer.write_nowait(b"too late")
        await client.send(b"GET /plain HTTP/1.1\r\nHost: rbee\r\n\r\n")
        assert (await client.read_answer()).body == b"ok"
    assert server.log.errors == ["direct_write_out_of_turn"]


async def test_the_server_survives_an_app_that_fails_when_its_writer_breaks(
    nursery: trio.Nursery,
) -> None:
    def fail(reason: str) -> None:
        raise RuntimeError(reason)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/plain":
            await say_ok(scope, receive, send)
            return
        writer = await start_stream(scope, send)
        writer.on_broken = fail
        await trio.sleep_forever()

    server = await start(nursery, app)
    async with await server.connect() as client:
        await client.send(GET)
        await client.read_head()
    assert await _serves_others(server)
    assert server.log.errors == ["connection_failed"]


async def _serves_others(server: Server) -> bool:
    async with await server.connect() as client:
        await client.send(b"GET /plain HTTP/1.1\r\nHost: rbee\r\n\r\n")
        return (await client.read_answer()).body == b"ok"
