"""What an app is told of its client: the body, and at once when it has gone (finding 6)."""

import contextlib
from typing import Any

import pytest
import trio
import trio.testing

from tests.http_server.harness import (
    AT_ONCE_S,
    CLOSE,
    GET,
    MOMENT_S,
    PATIENCE_S,
    POST,
    echo,
    never_answer,
    read_body,
    say_ok,
    start,
    start_stream,
)


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


# Finding 6: an app that waits in `receive` is told at once that its client has gone.


@pytest.mark.parametrize("streams", [True, False], ids=["streaming", "before the answer"])
@pytest.mark.parametrize(
    "how", ["closed", "reset", "half-closed", "closed with more requests", "closed with too much"]
)
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
            case "closed with too much":
                await client.send(bytes(200_000))
                await trio.testing.wait_all_tasks_blocked(0.01)
                await client.stream.aclose()
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


async def test_who_sends_on_and_on_behind_a_running_request_is_made_to_wait(
    nursery: trio.Nursery,
) -> None:
    app = Watch()
    server = await start(nursery, app)
    async with await server.connect() as client:
        await client.send(POST + b"abcdef")
        with trio.move_on_after(2 * MOMENT_S) as patience:
            await client.stream.send_all(bytes(99_000_000))
        assert patience.cancelled_caught
        assert not app.was_told.is_set()


async def test_a_client_that_is_made_to_wait_costs_nothing_meanwhile(
    nursery: trio.Nursery,
) -> None:
    server = await start(nursery, Watch())
    async with await server.connect() as client:
        await client.send(POST + b"abcdef" + bytes(200_000))
        with trio.fail_after(PATIENCE_S):
            await trio.testing.wait_all_tasks_blocked(2 * MOMENT_S)  # nobody looks now and then


async def test_who_sends_on_and_on_is_read_only_as_fast_as_it_is_answered(
    nursery: trio.Nursery,
) -> None:
    answers, sent_bytes = 2000, 0
    is_stuck = trio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal answers
        answers -= 1
        if answers:
            await say_ok(scope, receive, send)
        else:
            is_stuck.set()
            await trio.sleep_forever()

    async def send_on_and_on() -> None:
        nonlocal sent_bytes
        while True:
            await client.stream.send_all(GET * 1000)
            sent_bytes += len(GET * 1000)

    async def read_on_and_on() -> None:
        while True:
            await client.stream.receive_some(65536)

    server = await start(nursery, app)
    async with await server.connect() as client, trio.open_nursery() as talk:
        talk.start_soon(send_on_and_on)
        talk.start_soon(read_on_and_on)
        with trio.fail_after(PATIENCE_S):
            await is_stuck.wait()
        await trio.sleep(MOMENT_S)
        assert sent_bytes < 30_000_000  # most of it in the kernel; 64 KiB an answer are 130 MB
        talk.cancel_scope.cancel(reason="seen enough")


async def test_of_a_client_that_was_cut_off_no_further_request_is_begun(
    nursery: trio.Nursery,
) -> None:
    begun: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begun.append(scope["path"])
        headers = [(b"content-length", b"20000000")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": bytes(20_000_000)})

    server = await start(nursery, app, send_deadline_s=MOMENT_S)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(5):  # whether the app or the reader hears of it first is chance
            client = await stack.enter_async_context(await server.connect())
            await client.send(GET.replace(b" / ", b" /first ") + GET.replace(b" / ", b" /second "))
        await trio.sleep(MOMENT_S + AT_ONCE_S)
        assert len(server.log.of("client_given_up")) == 5
    assert begun == ["/first"] * 5
    assert server.log.errors == []


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


async def test_a_malformed_body_is_answered_also_where_the_app_says_nothing(
    nursery: trio.Nursery,
) -> None:
    server = await start(nursery, echo)
    async with await server.connect() as client:
        await client.send(
            b"POST / HTTP/1.1\r\nHost: rbee\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
        )
        assert (await client.read_answer()).status == 400
        with trio.fail_after(AT_ONCE_S):
            await client.stream.send_eof()
            assert await client.read_all() == b""
    assert server.log.errors == []
