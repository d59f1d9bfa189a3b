"""How connections begin, are kept, and end: findings 2, 3 and 5, and shutdown."""

import contextlib
from typing import Any

import pytest
import trio
import trio.testing
from starlette.responses import StreamingResponse

from tests.http_server.harness import (
    AT_ONCE_S,
    CLOSE,
    GET,
    MOMENT_S,
    POST,
    Server,
    echo,
    end_stream,
    never_answer,
    read_body,
    say_ok,
    start,
    start_stream,
)


async def stream_by_starlette(scope: Any, receive: Any, send: Any) -> None:
    async def parts() -> Any:
        for number in range(3):
            yield b"data: %d\n\n" % number

    response = StreamingResponse(parts(), media_type="text/event-stream")
    await response(scope, receive, send)


def send_much(size: int = 50_000_000) -> Any:
    """An app whose answer no kernel buffer holds."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"%d" % size)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": bytes(size)})

    return app


# Finding 2: a finished stream keeps its connection for ever.


async def test_finding_2_a_finished_stream_is_closed_when_the_client_asked_for_it(
    nursery: trio.Nursery,
) -> None:
    server = await start(nursery, stream_by_starlette)
    async with await server.connect() as client:
        await client.send(CLOSE)
        assert (await client.read_answer()).body == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
        with trio.fail_after(AT_ONCE_S):
            assert await client.read_all() == b""


async def test_finding_2_a_finished_stream_is_reused_and_then_closed_when_idle(
    nursery: trio.Nursery,
) -> None:
    server = await start(nursery, stream_by_starlette, keep_alive_s=MOMENT_S)
    async with await server.connect() as client:
        for _ in range(3):
            await client.send(GET)
            assert len((await client.read_answer()).chunks) == 3
        started = trio.current_time()
        assert await client.read_all() == b""
        assert MOMENT_S * 0.9 < trio.current_time() - started < MOMENT_S + AT_ONCE_S


async def test_plain_answers_are_kept_alive_and_many_may_be_asked_for_at_once(
    nursery: trio.Nursery,
) -> None:
    server = await start(nursery, echo)
    async with await server.connect() as client:
        bodies = [b"%06d" % number for number in range(20)]
        await client.send(b"".join(POST + body for body in bodies))
        assert [(await client.read_answer()).body for _ in bodies] == bodies


# Finding 3: a client that does not read must not hold shutdown.


async def test_finding_3_a_client_that_stops_reading_delays_shutdown_by_the_send_deadline(
    nursery: trio.Nursery,
) -> None:
    server = await start(nursery, send_much(), send_deadline_s=MOMENT_S)
    async with await server.connect() as client:
        await client.send(GET)
        await client.read_head()
        server.shutdown.set()
        with trio.fail_after(MOMENT_S + AT_ONCE_S):
            await server.ended.wait()


async def test_finding_3_a_client_that_stops_reading_does_not_delay_cancellation(
    nursery: trio.Nursery,
) -> None:
    server = await start(nursery, send_much(), send_deadline_s=60)
    async with await server.connect() as client:
        await client.send(GET)
        await client.read_head()
        server.life.cancel()
        with trio.fail_after(AT_ONCE_S):
            await server.ended.wait()


async def test_a_client_that_reads_slowly_gets_everything(nursery: trio.Nursery) -> None:
    size = 2_000_000
    server = await start(nursery, send_much(size), send_deadline_s=MOMENT_S)
    async with await server.connect() as client:
        await client.send(GET)
        await client.read_head()
        for _ in range(size // 200_000):
            await trio.sleep(MOMENT_S / 4)
            assert len(await client.read(200_000)) == 200_000
        await client.send(GET)
        assert (await client.read_head())[0] == 200


# Finding 5: slow heads are cut; bodies and silent streams are the app's affair.


async def test_finding_5_a_head_that_drips_is_cut_at_its_deadline(nursery: trio.Nursery) -> None:
    server = await start(nursery, say_ok, headers_timeout_s=MOMENT_S)
    async with await server.connect() as client:
        started = trio.current_time()

        async def drip() -> None:
            for byte in GET[:-1] * 100:
                await trio.sleep(MOMENT_S / 8)
                try:
                    await client.stream.send_all(bytes([byte]))
                except trio.BrokenResourceError:
                    return

        nursery.start_soon(drip)
        assert await client.read_all() == b""
        assert trio.current_time() - started < MOMENT_S + AT_ONCE_S


async def test_finding_5_a_later_head_has_the_same_deadline(nursery: trio.Nursery) -> None:
    server = await start(nursery, say_ok, headers_timeout_s=MOMENT_S)
    async with await server.connect() as client:
        await client.send(GET + GET[:10])
        assert (await client.read_answer()).status == 200
        with trio.fail_after(MOMENT_S + AT_ONCE_S):
            assert await client.read_all() == b""


async def test_finding_5_a_client_that_says_nothing_is_cut(nursery: trio.Nursery) -> None:
    server = await start(nursery, say_ok, headers_timeout_s=MOMENT_S)
    async with await server.connect() as client:
        with trio.fail_after(MOMENT_S + AT_ONCE_S):
            assert await client.read_all() == b""


async def test_finding_5_a_slow_body_and_a_silent_stream_are_not_cut(
    nursery: trio.Nursery,
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await read_body(receive)
        await start_stream(scope, send)
        await trio.sleep(3 * MOMENT_S)
        await end_stream(send)

    server = await start(nursery, app, headers_timeout_s=MOMENT_S, keep_alive_s=MOMENT_S)
    async with await server.connect() as client:
        await client.send(POST)
        for byte in b"abcdef":
            await trio.sleep(MOMENT_S / 2)
            await client.send(bytes([byte]))
        assert (await client.read_answer()).status == 200


# Shutdown.


async def test_shutdown_answers_what_runs_and_closes_what_is_idle(nursery: trio.Nursery) -> None:
    go = trio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "POST":
            await go.wait()
        await say_ok(scope, receive, send)

    server = await start(nursery, app)
    async with (
        await server.connect() as busy,
        await server.connect() as idle,
        await server.connect() as fresh,
    ):
        await idle.send(GET)
        await idle.read_answer()
        await busy.send(POST + b"abcdef")
        await server.answers()  # so the server has seen the other two
        server.shutdown.set()
        with trio.fail_after(1 + AT_ONCE_S):  # either may be about to ask
            assert await idle.read_all() == b""
            assert await fresh.read_all() == b""
        assert not server.ended.is_set()
        go.set()
        answer = await busy.read_answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        with trio.fail_after(AT_ONCE_S):
            await server.ended.wait()
    await _assert_refuses(server)


async def test_shutdown_answers_all_requests_that_had_reached_the_kernel(
    nursery: trio.Nursery,
) -> None:
    server = await start(nursery, say_ok)
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(server.connect_unseen()) for _ in range(200)]
        for client in clients:
            client.send_unseen(GET)
        server.shutdown.set()
        for client in clients:
            assert (await client.read_answer()).status == 200
    with trio.fail_after(AT_ONCE_S):
        await server.ended.wait()


async def test_cancelled_the_server_closes_everything_at_once(nursery: trio.Nursery) -> None:
    server = await start(nursery, never_answer)
    async with await server.connect() as client:
        await client.send(GET)
        await trio.testing.wait_all_tasks_blocked(0.01)
        server.life.cancel()
        with trio.fail_after(AT_ONCE_S):
            await server.ended.wait()
            assert await client.read_all() == b""
    await _assert_refuses(server)


async def _assert_refuses(server: Server) -> None:
    with pytest.raises(OSError, match="all attempts to connect"):
        await server.connect()


async def test_a_request_that_came_in_time_is_answered_by_a_server_that_looks_too_late(
    nursery: trio.Nursery,
) -> None:
    server = await start(nursery, say_ok, headers_timeout_s=0)
    async with server.connect_unseen() as client:
        client.send_unseen(GET)
        assert (await client.read_answer()).status == 200
