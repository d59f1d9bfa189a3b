"""One connection of the local face, in this process: what an app and a client do to each other."""

import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from rbee.config import ServerConfig
from rbee.local_wire import End, Head, Part, Request
from rbee.supervisor.api.app import make_face
from rbee.supervisor.http_server import HttpLimits
from rbee.supervisor.local.connection import Connection, Shared
from rbee.supervisor.local.exchange import as_bytes
from rbee.supervisor.local.zmtp import GREETING
from rbee.supervisor.local.zmtp import READY as SERVERS_READY
from tests.api.face import CHAT, FakeOperations, LogLines
from tests.api.fake_generator import FakeGenerator
from tests.local.raw import HELLO, request

PING = b"\x04\x17\x04PING\0\0" + b"context of a ping"[:16]
BODY_BYTES_MAX = 1 << 20
BODY_TIMEOUT_S = 60
App = Callable[[Any, Any, Callable[[Any], Awaitable[None]]], Awaitable[None]]


async def run(connection: Connection, ended: trio.Event) -> None:
    await connection.run()
    ended.set()


@asynccontextmanager
async def served(
    app: App, send_deadline_s: float = 60
) -> AsyncIterator[tuple[Connection, socket.socket, trio.Event]]:
    """A connection, the client's end of it, and what is set when it has ended."""
    limits = HttpLimits(send_deadline_s=send_deadline_s)
    shared = Shared(app, limits, BODY_BYTES_MAX, BODY_TIMEOUT_S, LogLines())
    ours, clients = socket.socketpair(socket.AF_UNIX)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    for each in ours, clients:
        each.setblocking(False)
    connection, ended = Connection(shared, ours), trio.Event()
    with clients:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, connection, ended)
            with trio.fail_after(10):
                yield connection, clients, ended
            nursery.cancel_scope.cancel(reason="the test is over")


def received(sock: socket.socket) -> bytes:
    """All that was sent on a connection that has ended."""
    return b"".join(iter(lambda: sock.recv(65536), b""))


async def no_app(_scope: Any, _receive: Any, _send: Any) -> None:
    pytest.fail("a request was made of none")


async def test_behind_an_answer_that_broke_off_comes_nothing() -> None:
    begun: list[str] = []
    second = trio.Event()

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        begun.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"1", "more_body": True})
        await second.wait()

    async with served(app) as (_, client, ended):
        client.send(HELLO + request(Request("GET", "/first")) + request(Request("GET", "/second")))
        await trio.testing.wait_all_tasks_blocked(0.01)
        second.set()
        await ended.wait()
        assert received(client) == (
            GREETING + SERVERS_READY + as_bytes(Head(200, {})) + as_bytes(Part(b"1"))
        )
    assert begun == ["/first"]


async def test_an_idle_client_that_does_not_read_is_cut_at_once() -> None:
    async with served(no_app) as (connection, client, ended):
        client.send(HELLO)
        while connection._outbox.parked_bytes == 0:
            client.send(PING * 100)
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert connection.is_idle
        connection.cut()
        await ended.wait()


async def test_a_request_that_begins_with_the_handshake_has_a_time_of_its_own() -> None:
    async with served(no_app) as (connection, client, _):
        client.send(HELLO + request(Request("POST", "/"), b"12")[:-1])
        await trio.testing.wait_all_tasks_blocked(0.01)
        left_s = connection._deadline - trio.current_time()
        assert HttpLimits().headers_timeout_s < left_s <= BODY_TIMEOUT_S


async def test_a_client_whose_request_is_on_its_way_is_not_idle() -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    async with served(app) as (connection, client, _):
        client.send(HELLO)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert connection.is_idle
        client.send(request(Request("GET", "/first")))
        assert not connection.is_idle
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert connection.is_idle
        client.close()
        assert connection.is_idle


@pytest.mark.parametrize(("ahead_bytes", "is_borne"), [(100_000, True), (300_000, False)])
async def test_what_is_received_ahead_is_bounded(ahead_bytes: int, is_borne: bool) -> None:
    async def app(_scope: Any, receive: Any, _send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async with served(app) as (_, client, ended):
        client.send(HELLO + request(Request("GET", "/first")) + request(Request("GET", "/second")))
        third = request(Request("POST", "/third"), bytes(ahead_bytes))
        while third and not ended.is_set():
            try:
                third = third[client.send(third) :]
            except BlockingIOError:
                await trio.testing.wait_all_tasks_blocked(0.01)
            except BrokenPipeError:
                break
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert ended.is_set() is not is_borne


@pytest.mark.parametrize("begun", [False, True], ids=["a-body", "a-body-behind-another-request"])
async def test_nothing_that_was_received_outlives_the_connection(begun: bool) -> None:
    async def app(_scope: Any, receive: Any, _send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async with served(app) as (connection, client, ended):
        first = request(Request("GET", "/first")) + request(Request("GET", "/second"))
        client.send(HELLO + (first if begun else b"") + request(Request("POST", "/"), b"12")[:-1])
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert connection._zmtp.is_in_message
        client.close()
        await ended.wait()
        assert not connection._zmtp.is_in_message
        assert connection._next is None


async def test_a_stream_that_is_broken_off_is_not_told_to_be_whole() -> None:
    generator = FakeGenerator()
    face = make_face(generator, FakeOperations(), ServerConfig(), LogLines())
    asking = request(
        Request("POST", "/v1/chat/completions"), json.dumps({**CHAT, "stream": True}).encode()
    )
    async with served(face.app) as (_, client, ended):
        client.send(HELLO + asking)
        [asked] = await generator.wait_asked()
        asked.push("1 ")
        await trio.testing.wait_all_tasks_blocked(0.01)
        client.shutdown(socket.SHUT_WR)
        await ended.wait()
        told = received(client)
    assert asked.cancelled == "client_gone"
    assert b'"1 "' in told
    assert not told.endswith(as_bytes(End()))


async def test_an_answer_that_is_not_taken_is_no_good_one() -> None:
    generator, log = FakeGenerator(), LogLines()
    face = make_face(generator, FakeOperations(), ServerConfig(), log)
    asking = request(Request("POST", "/v1/chat/completions"), json.dumps(CHAT).encode())
    async with served(face.app, send_deadline_s=0.1) as (_, client, ended):
        client.send(HELLO + asking)
        [asked] = await generator.wait_asked()
        asked.push("x" * 1_000_000, finish="stop")
        await ended.wait()
    [line] = log.of("request_done")
    assert (line["outcome"], line["status"], line["face"]) == ("slow_client", 200, "local")
