"""The face behind the real HTTP server, on real sockets, asked by the official client."""

import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
import trio
from openai.types.chat import ChatCompletionChunk

from rbee.ask import Ask
from rbee.config import ServerConfig
from rbee.errors import ErrorCode, RequestError
from rbee.supervisor.api.app import make_face
from rbee.supervisor.http_server import HttpLimits, bind_sockets, serve_http
from tests.api.face import CHAT, FakeOperations, LogLines
from tests.api.fake_generator import Asked, FakeGenerator

Answer = Callable[[Asked], None]


class Served:
    """A running server, and what stands behind it."""

    def __init__(self, generator: FakeGenerator, port: int, log: LogLines) -> None:
        self.generator = generator
        self.port = port
        self.log = log

    def client(self) -> openai.OpenAI:
        url = f"http://127.0.0.1:{self.port}/v1"
        return openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=10)


@asynccontextmanager
async def serving(answer: Answer | None = None, **limits: int) -> AsyncIterator[Served]:
    """Serve on a free port; ``answer`` is called with each ask once it was taken."""
    generator, log = FakeGenerator(), LogLines()
    sockets = bind_sockets("127.0.0.1", 0, 16)
    port = sockets[0].getsockname()[1]
    app = make_face(generator, FakeOperations(), ServerConfig(), log).app
    shutdown = trio.Event()

    async def serve(*, task_status: trio.TaskStatus[None]) -> None:
        await serve_http(
            app, sockets, HttpLimits(**limits), log=log, shutdown=shutdown, task_status=task_status
        )

    async def answer_all() -> None:
        done = 0
        while answer is not None:
            await generator.wait_asked(done + 1)
            answer(generator.asked[done])
            done += 1

    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        nursery.start_soon(answer_all)
        try:
            with trio.fail_after(20):
                yield Served(generator, port, log)
        finally:
            nursery.cancel_scope.cancel(reason="the test is over")


def count_to_five(asked: Asked) -> None:
    for number in range(1, 6):
        asked.push(f"{number} ", finish="stop" if number == 5 else None)


async def in_thread(function: Callable[[], Any]) -> Any:
    return await trio.to_thread.run_sync(function)


async def test_the_official_client_gets_an_answer() -> None:
    async with serving(count_to_five) as served:
        with served.client() as client:

            def ask() -> Any:
                return client.chat.completions.create(**CHAT, max_completion_tokens=9)  # type: ignore[call-overload]

            answer = await in_thread(ask)
            models = await in_thread(client.models.list)
    assert answer.choices[0].message.content == "1 2 3 4 5 "
    assert answer.usage.completion_tokens == 5
    assert [each.id for each in models.data] == ["bee-tiny", "org/large"]
    wanted: Ask = served.generator.asked[0].ask
    assert wanted.tokens_max == 9


async def test_the_official_client_streams_on_one_connection_again_and_again() -> None:
    async with serving(count_to_five) as served:
        with served.client() as client:

            def ask() -> list[ChatCompletionChunk]:
                return list(
                    client.chat.completions.create(  # type: ignore[call-overload]
                        **CHAT, stream=True, stream_options={"include_usage": True}
                    )
                )

            for _ in range(3):
                chunks = await in_thread(ask)
                told = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
                assert told == "1 2 3 4 5 "
                assert chunks[-1].usage is not None
                assert chunks[-1].usage.completion_tokens == 5
    assert [each["outcome"] for each in served.log.of("request_done")] == ["ok"] * 3


async def test_the_official_client_raises_what_the_error_is() -> None:
    def fail(asked: Asked) -> None:
        asked.fail(RequestError(ErrorCode.CONTEXT_LENGTH_EXCEEDED, "too long", param="messages"))

    async with serving(fail) as served:
        with served.client() as client:

            def ask() -> Any:
                return client.chat.completions.create(**CHAT)  # type: ignore[call-overload]

            def ask_wrongly() -> Any:
                return client.chat.completions.create(**CHAT, temperature=9)  # type: ignore[call-overload]

            with pytest.raises(openai.BadRequestError) as caught:
                await in_thread(ask)
            assert caught.value.code == "context_length_exceeded"
            assert caught.value.param == "messages"
            with pytest.raises(openai.BadRequestError, match="temperature"):
                await in_thread(ask_wrongly)


async def test_the_official_client_raises_when_a_stream_fails_in_the_middle() -> None:
    async with serving(lambda asked: asked.push("1 ")) as served:
        with served.client() as client:
            seen: list[str] = []

            def ask() -> None:
                for chunk in client.chat.completions.create(**CHAT, stream=True):  # type: ignore[call-overload]
                    seen.append(chunk.choices[0].delta.content)
                    if len(seen) == 2:
                        error = RequestError(ErrorCode.WORKER_FAILED, "the worker ended")
                        trio.from_thread.run_sync(served.generator.asked[0].fail, error)

            with pytest.raises(openai.APIError, match="the worker ended"):
                await in_thread(ask)
    assert seen == ["", "1 "]


async def test_a_client_that_goes_in_the_middle_ends_its_request_within_200_ms() -> None:
    for stream in (True, False):
        async with serving() as served:
            connection = await _open(served, {**CHAT, "stream": stream})
            [asked] = await served.generator.wait_asked()
            asked.push("1 ")
            if stream:
                await _read_until(connection, b'"1 "')
            await connection.aclose()
            with trio.fail_after(0.2):
                await served.generator.wait_cancelled()


async def test_a_client_that_does_not_read_is_cut_off_and_the_others_are_not() -> None:
    async with serving(parked_bytes_max=16 * 1024) as served:
        stuck = await _open(served, {**CHAT, "stream": True}, receive_bytes=4096)
        [asked] = await served.generator.wait_asked()
        asked.push("1 ")
        await _read_until(stuck, b'"1 "')
        with trio.fail_after(5):
            while asked.cancelled is None:
                asked.push("x" * 8192)
                await trio.lowlevel.checkpoint()
        assert asked.cancelled == "slow_client"
        other = await _open(served, {**CHAT, "stream": True})
        await served.generator.wait_asked(2)
        count_to_five(served.generator.asked[1])
        assert b"[DONE]" in await _read_until(other, b"[DONE]")
        await stuck.aclose()
        await other.aclose()


async def test_a_client_of_http_1_0_gets_its_stream_without_the_direct_way() -> None:
    async with serving(count_to_five) as served:
        connection = await _open(served, {**CHAT, "stream": True}, version=b"1.0")
        answer = await _read_all(connection)
    assert answer.startswith(b"HTTP/1.")
    assert answer.count(b"data: ") == 8
    assert answer.endswith(b"data: [DONE]\n\n")


async def test_a_body_that_is_too_large_is_answered_before_it_was_sent() -> None:
    async with serving() as served:
        connection = await trio.open_tcp_stream("127.0.0.1", served.port)
        await connection.send_all(
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n{"
        )
        answer = await _read_all(connection)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"body_too_large"' in answer


async def test_a_chunked_body_without_end_is_stopped_at_the_limit() -> None:
    async with serving() as served:
        connection = await trio.open_tcp_stream("127.0.0.1", served.port)
        head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
        await connection.send_all(head + b"Transfer-Encoding: chunked\r\n\r\n")

        async def send_on() -> None:
            with contextlib.suppress(trio.BrokenResourceError):
                for _ in range(1024):
                    await connection.send_all(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_on)
            answer = await _read_until(connection, b"}}")
            nursery.cancel_scope.cancel(reason="the answer is here")
        await connection.aclose()
    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_head_and_get_share_a_connection() -> None:
    async with serving() as served:
        connection = await trio.open_tcp_stream("127.0.0.1", served.port)
        for method in (b"HEAD", b"GET", b"HEAD", b"GET"):
            await connection.send_all(method + b" /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            end = b'"ok"}' if method == b"GET" else b"\r\n\r\n"
            answer = await _read_until(connection, end)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert (b'{"status"' in answer) == (method == b"GET")
        await connection.aclose()


async def _open(
    served: Served, body: dict[str, Any], *, version: bytes = b"1.1", receive_bytes: int = 0
) -> trio.SocketStream:
    """Connect, and post ``body`` to the chat route."""
    sock = trio.socket.socket()
    if receive_bytes:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    await sock.connect(("127.0.0.1", served.port))
    raw = json.dumps(body).encode()
    head = b"POST /v1/chat/completions HTTP/%b\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
    connection = trio.SocketStream(sock)
    await connection.send_all(head % (version, len(raw)) + raw)
    return connection


async def _read_until(connection: trio.SocketStream, end: bytes) -> bytes:
    received = b""
    while end not in received:
        part = await connection.receive_some()
        assert part, "the server closed the connection"
        received += part
    return received


async def _read_all(connection: trio.SocketStream) -> bytes:
    received = b"".join([part async for part in connection])
    await connection.aclose()
    return received
