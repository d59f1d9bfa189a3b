"""Many clients, and too many: finding 11, the cap, and a system without descriptors."""

import contextlib
import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import trio

from rbee.supervisor.http_server.limits import HttpLimits, connections_max
from tests.http_server.harness import GET, Client, Server, say_ok, start

CLIENTS = 1000
SOMAXCONN = Path("/proc/sys/net/core/somaxconn")


@contextlib.contextmanager
def descriptors(soft: int) -> Iterator[None]:
    """Set this process's limit on descriptors for a while."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_finding_11_a_thousand_clients_at_once_all_get_their_answer(
    nursery: trio.Nursery,
) -> None:
    answers: list[int] = []

    async def ask(server: Server) -> None:
        async with await server.connect() as client:
            await client.send(GET)
            answers.append((await client.read_answer()).status)

    with descriptors(resource.getrlimit(resource.RLIMIT_NOFILE)[1]):
        server = await start(nursery, say_ok, connections_max=CLIENTS)
        async with trio.open_nursery() as clients:
            for _ in range(CLIENTS):
                clients.start_soon(ask, server)
    assert answers == [200] * CLIENTS
    assert server.log.lines == []


async def test_finding_11_the_kernel_holds_as_many_connections_as_the_backlog_says(
    nursery: trio.Nursery,
) -> None:
    # All connect before the server has a chance to accept one; none may be reset.
    count = min(CLIENTS, int(SOMAXCONN.read_text()))
    with descriptors(resource.getrlimit(resource.RLIMIT_NOFILE)[1]):
        server = await start(nursery, say_ok, connections_max=CLIENTS)
        async with contextlib.AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(server.connect_unseen()) for _ in range(count)
            ]
            for client in clients:
                client.send_unseen(GET)
            for client in clients:
                assert (await client.read_answer()).status == 200


async def test_a_client_over_the_cap_is_told_so_and_the_others_are_served(
    nursery: trio.Nursery,
) -> None:
    server = await start(nursery, say_ok, connections_max=2)
    async with await server.connect() as first, await server.connect() as second:
        for client in (first, second):
            await client.send(GET)
            await client.read_answer()
        async with await server.connect() as third:
            await third.send(GET)  # also while it talks, it must get to read the answer
            answer = await third.read_answer()
            assert (answer.status, answer.error["code"]) == (503, "queue_full")
            assert (answer.headers["retry-after"], answer.headers["connection"]) == ("1", "close")
            assert await third.read_all() == b""
        await second.send(GET)
        assert (await second.read_answer()).status == 200
        await first.stream.aclose()
        await _wait_answers(server)
    assert server.log.of("connections_full")[0]["connections_max"] == 2


async def test_a_flood_over_the_cap_leaves_those_inside_served(nursery: trio.Nursery) -> None:
    server = await start(nursery, say_ok, connections_max=1)
    async with await server.connect() as inside, contextlib.AsyncExitStack() as flood:
        await inside.send(GET)
        await inside.read_answer()
        outside = [await flood.enter_async_context(server.connect_unseen()) for _ in range(200)]
        await inside.send(GET)
        with trio.fail_after(1):
            assert (await inside.read_answer()).status == 200
        told = [(await client.read_all())[:12] for client in outside]
    # The answers to a few are seen off; the rest is closed, so that descriptors are left.
    assert told.count(b"HTTP/1.1 503") == 64
    assert told.count(b"") == 136
    assert len(server.log.of("connections_full")) == 1  # not a line for each


async def test_without_descriptors_the_server_waits_and_then_accepts(
    nursery: trio.Nursery,
) -> None:
    server = await start(nursery, say_ok)
    sock = socket.socket()
    with descriptors(_lowest_free()):
        sock.connect(("127.0.0.1", server.port))
        client = Client(trio.SocketStream(trio.socket.from_stdlib_socket(sock)))
        await client.send(GET)
        while not server.log.of("accept_failed"):
            await trio.sleep(0.01)
        assert server.log.of("accept_failed")[0]["error"] == "EMFILE"
    async with client:
        assert (await client.read_answer()).status == 200
    assert await server.answers()
    assert len(server.log.of("accept_failed")) == 1


def test_the_cap_leaves_descriptors_for_the_rest_of_the_supervisor() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert connections_max(HttpLimits()) == soft - 512
    with descriptors(300):
        assert connections_max(HttpLimits()) == 150
    assert connections_max(HttpLimits(connections_max=7)) == 7


async def _wait_answers(server: Server) -> None:
    with trio.fail_after(2):
        while not await server.answers():
            await trio.sleep(0.01)


def _lowest_free() -> int:
    """The number that the next descriptor would have; limited to it, none can be opened."""
    free = os.dup(0)
    os.close(free)
    return free
