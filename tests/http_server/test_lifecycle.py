"""How connections begin, are kept, and end: findings 2, 3, 5 and 6, and shutdown."""

import contextlib
from typing import Any

import pytest
import trio
import trio.testing
from starlette.responses import StreamingResponse

from tests.http_server.harness import (
    GET,
    Server,
    echo,
    end_stream,
    read_body,
    say_ok,
    start,
    start_stream,
)

POST = b"POST / HTTP/1.1\r\nHost: rbee\r\nContent-Length: 6\r\n\r\n"
CLOSE = b"GET / HTTP/1.1\r\nHost: rbee\r\nConnection: close\r\n\r\n"
MOMENT_S = 0.2  # a timeout under test
AT_ONCE_S = 0.5  # what "at once" may take on a busy machine


async def stream_by_starlette(scope: Any, receive: Any, send: Any) -> None:
    async def parts() -> Any:
        for number in range(3):
            yield b"data: %d\n\n" % number

    response = StreamingResponse(parts(), media_type="text/event-stream")
    await response(scope, receive, send)


async def never_answer(scope: Any, receive: Any, send: Any) -> None:
    await trio.sleep_forever()


def send_much(size: int = 50_000_000) -> Any:
    """An app whose answer no kernel buffer holds."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"%d" % size)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": bytes(size)})

    return app


class Watch:
    """An app that waits for its client's going, and notes when it is told."""

    def __init__(self, *, streams: bool = False) -> None:
        self.has_started = trio.Event()
        self.was_told = trio.Event()
        self._streams = streams

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await read_body(receive)
        if self._streams:
            await start_stream(scope, send)
        self.has_started.set()
        assert await receive() == {"type": "http.disconnect"}
        self.was_told.set()


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


# Finding 6: an app that waits in `receive` is told at once that its client has gone.


@pytest.mark.parametrize("streams", [True, False], ids=["streaming", "before the answer"])
@pytest.mark.parametrize("how", ["closed", "reset", "half-closed", "closed with more requests"])
async def test_finding_6_an_app_that_waits_is_told_at_once_that_its_client_has_gone(
    how: str, streams: bool, nursery: trio.Nursery
) -> None:
    app = Watch(streams=streams)
    server = await start(nursery, app)
    async with await server.connect() as client:
        await client.send(POST + b"abcdef")
        with trio.fail_after(1):
            await app.has_started.wait()
        match how:
            case "closed":
                await client.stream.aclose()
            case "reset":
                await client.reset()
            case "half-closed":
                await client.stream.send_eof()
            case _:
                await client.send(GET * 100)
                await client.stream.aclose()
        with trio.fail_after(AT_ONCE_S):
            await app.was_told.wait()
    assert server.log.errors == []


async def test_an_app_is_told_of_a_disconnect_as_often_as_it_asks(nursery: trio.Nursery) -> None:
    told: list[str] = []
    has_ended = trio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await say_ok(scope, receive, send)
        told.extend([(await receive())["type"] for _ in range(4)])
        has_ended.set()

    server = await start(nursery, app)
    assert await server.answers()
    with trio.fail_after(1):
        await has_ended.wait()
    assert told == ["http.request", *["http.disconnect"] * 3]


async def test_an_app_that_asks_on_and_on_after_the_disconnect_stops_nobody(
    nursery: trio.Nursery,
) -> None:
    is_other_served = trio.Event()
    asked: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "GET":
            await say_ok(scope, receive, send)
            return
        for count in range(1_000_000):
            await receive()
            if is_other_served.is_set():
                asked.append(count)
                return

    server = await start(nursery, app)
    async with await server.connect() as client:
        await client.send(POST + b"abcdef")
    assert await server.answers()
    is_other_served.set()
    with trio.fail_after(AT_ONCE_S):
        while not asked:
            await trio.sleep(0.01)


async def test_a_client_that_only_ended_its_own_talking_gets_a_plain_answer(
    nursery: trio.Nursery,
) -> None:
    server = await start(nursery, echo)
    async with await server.connect() as client:
        await client.send(POST + b"abcdef")
        await client.stream.send_eof()
        assert (await client.read_answer()).body == b"abcdef"
        assert await client.read_all() == b""


async def test_who_sends_on_and_on_behind_a_running_request_is_cut(nursery: trio.Nursery) -> None:
    app = Watch()
    server = await start(nursery, app)
    async with await server.connect() as client:
        await client.send(POST + b"abcdef" + bytes(200_000))
        with trio.fail_after(AT_ONCE_S):
            await app.was_told.wait()


# Bodies.


async def test_an_answer_before_the_body_reaches_the_client_and_ends_the_connection(
    nursery: trio.Nursery,
) -> None:
    # Stock hypercorn waits for ever once 10 parts of a body are unread.
    server = await start(nursery, say_ok, unread_bytes_max=1000)
    async with await server.connect() as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: rbee\r\nContent-Length: 2000000\r\n\r\n")
        nursery.start_soon(_send_what_is_taken, client, 1_000_000)
        answer = await client.read_answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        with trio.fail_after(2):
            assert await client.read_all() == b""


async def test_a_client_may_go_on_talking_for_a_while_after_an_early_answer(
    nursery: trio.Nursery,
) -> None:
    # A reset now would take the answer away from clients that send first and read later.
    server = await start(nursery, say_ok, unread_bytes_max=1000, linger_s=5)
    async with await server.connect() as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: rbee\r\nContent-Length: 2000000\r\n\r\n")
        assert (await client.read_answer()).status == 200
        for _ in range(10):
            await client.send(bytes(20_000))
            await trio.sleep(0.01)
        await client.stream.send_eof()
        assert await client.stream.receive_some() == b""


async def test_what_follows_a_last_request_is_ignored(nursery: trio.Nursery) -> None:
    app = Watch()
    server = await start(nursery, app)
    async with await server.connect() as client:
        await client.send(CLOSE + bytes(200_000))
        await app.has_started.wait()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert not app.was_told.is_set()
    with trio.fail_after(AT_ONCE_S):
        await app.was_told.wait()


async def _send_what_is_taken(client: Any, size: int) -> None:
    try:
        await client.stream.send_all(bytes(size))
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return


async def test_a_body_that_the_app_does_not_read_is_not_taken_in_without_bound(
    nursery: trio.Nursery,
) -> None:
    server = await start(nursery, never_answer, unread_bytes_max=100_000)
    async with await server.connect() as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: rbee\r\nContent-Length: 99000000\r\n\r\n")
        with trio.move_on_after(2 * MOMENT_S) as patience:
            await client.stream.send_all(bytes(99_000_000))
        assert patience.cancelled_caught


async def test_a_client_that_waits_for_a_go_ahead_gets_it(nursery: trio.Nursery) -> None:
    server = await start(nursery, echo)
    async with await server.connect() as client:
        await client.send(POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
        assert await client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 \r\n\r\n"
        await client.send(b"abcdef")
        assert (await client.read_answer()).body == b"abcdef"


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
        with trio.fail_after(AT_ONCE_S):
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
