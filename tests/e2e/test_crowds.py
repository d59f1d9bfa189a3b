"""Many clients of the real server at once, most of them hostile: C2 to C4, in small.

With RBEE_TEST_CROWD=5 C3 is as large as it is promised: see docs/performance.md.
"""

import contextlib
import json
import os
import random
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import trio

from rbee.supervisor.http_server.limits import DESCRIPTORS_KEPT
from tests.e2e.server import Server, serving, synthetic_config, wait_until
from tests.http_server.harness import Client
from tests.lane.made_requests import make

MUTATIONS = int(os.environ.get("RBEE_TEST_MUTATIONS", "2000"))
CROWD = int(os.environ.get("RBEE_TEST_CROWD", "1"))
CONNECTIONS = 5000
GONE_S = 15.0  # C3: attackers are gone by then

LIVE = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
MODEL = "bee-tiny"  # as the made requests name it
CONFIG = """
[server]
dumpable = true
body_timeout_s = 4.0
"""


def config_of_server() -> str:
    return synthetic_config(head=CONFIG).replace('name = "synthetic"', f'name = "{MODEL}"')


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("crowds"), config_of_server()) as server:
        yield server


def chat(tokens: int, *, stream: bool = False) -> bytes:
    content = f"[tokens={tokens}]"
    body = {"model": MODEL, "messages": [{"role": "user", "content": content}]}
    raw = json.dumps({**body, "stream": stream, "max_tokens": tokens}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
    return head % len(raw) + raw


class Crowd:
    """Clients of one server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.address = (urlsplit(server.url).hostname, urlsplit(server.url).port)
        self.descriptors = psutil.Process(server.pid).num_fds()
        self.gone_s: list[float] = []  # after how long each attacker was cut off
        self.waits_s: list[float] = []  # for an answer, of good clients

    async def connect(self, receive_bytes: int = 0) -> Client:
        sock = trio.socket.socket()
        if receive_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        await sock.connect(self.address)
        return Client(trio.SocketStream(sock))

    async def attack(self, sent: bytes, *, drips: bytes = b"") -> None:
        """Send, say on a byte each half second, and see how long it is borne."""
        async with await self.connect() as client:
            started_s = trio.current_time()
            await client.send(sent)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_drip, client, drips)
                with trio.fail_after(2 * GONE_S), contextlib.suppress(trio.BrokenResourceError):
                    while await client.stream.receive_some(65_536):
                        pass
                nursery.cancel_scope.cancel(reason="cut off")
            self.gone_s.append(trio.current_time() - started_s)

    async def ask_and_not_read(self) -> None:
        async with await self.connect(receive_bytes=4096) as client:
            started_s = trio.current_time()
            await client.send(chat(100_000, stream=True))
            with trio.fail_after(2 * GONE_S), contextlib.suppress(trio.BrokenResourceError):
                while True:  # a reset is all that it hears; it must not read to hear it
                    await trio.sleep(0.5)
                    await client.stream.send_all(b"x")
            self.gone_s.append(trio.current_time() - started_s)

    async def ask_well(self, count: int) -> None:
        async with await self.connect() as client:
            for _ in range(count):
                begun_s = time.perf_counter()
                with trio.fail_after(10):
                    await client.send(chat(3))
                    answer = await client.read_answer()
                self.waits_s.append(time.perf_counter() - begun_s)
                assert answer.status == 200, answer
                assert json.loads(answer.body)["choices"][0]["message"]["content"] == "0 1 2 "
                await trio.sleep(0.1)

    def assert_unharmed(self) -> None:
        """Nothing of the crowd is left, and the log names no error."""
        process = psutil.Process(self.server.pid)
        wait_until(lambda: process.num_fds() <= self.descriptors, 10, "all descriptors are closed")
        assert self.server.chat("[tokens=3]", MODEL).status_code == 200
        assert self.server.process.poll() is None
        assert not [event for event in self.server.events if event.get("level") == "error"]


async def _drip(client: Client, drips: bytes) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        for byte in drips:
            await trio.sleep(0.5)
            await client.stream.send_all(bytes([byte]))


async def test_c3_good_clients_are_served_beside_slow_ones_which_are_soon_gone(
    server: Server,
) -> None:
    crowd = Crowd(server)
    async with trio.open_nursery() as nursery:
        for _ in range(500):
            nursery.start_soon(crowd.attack, b"")
        for _ in range(100 * CROWD):
            nursery.start_soon(lambda: crowd.attack(LIVE[:20], drips=b"x" * 100))
            nursery.start_soon(lambda: crowd.attack(chat(3)[:-60], drips=b" " * 59))
            nursery.start_soon(crowd.ask_and_not_read)
        for _ in range(20 * CROWD):
            nursery.start_soon(crowd.ask_well, 50)
    waits_ms = [1000 * wait_s for wait_s in sorted(crowd.waits_s)]
    print(
        f"C3: {len(crowd.gone_s)} attackers, gone after {max(crowd.gone_s):.1f} s at most;"
        f" {len(waits_ms)} good answers, p50 {waits_ms[len(waits_ms) // 2]:.1f} ms,"
        f" slowest {waits_ms[-1]:.1f} ms"
    )
    assert len(crowd.gone_s) == 500 + 300 * CROWD
    assert len(waits_ms) == 20 * CROWD * 50
    assert max(crowd.gone_s) <= GONE_S
    crowd.assert_unharmed()


async def test_c2_five_thousand_connections_are_kept_and_cost_the_others_nothing(
    server: Server,
) -> None:
    needed, (soft, _) = CONNECTIONS + 500, resource.getrlimit(resource.RLIMIT_NOFILE)
    limit_of_server = psutil.Process(server.pid).rlimit(psutil.RLIMIT_NOFILE)[0]
    if min(soft, limit_of_server) < needed:
        pytest.skip(f"this system allows {soft} descriptors, and {needed} are needed")
    crowd = Crowd(server)
    sockets: list[socket.socket] = []
    try:
        for number in range(CONNECTIONS):
            sockets.append(socket.create_connection(crowd.address, 10))
            if number % 2:
                sockets[-1].sendall(LIVE)
        for sock in sockets[1::2]:
            assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")
        waits_s = []
        async with await crowd.connect() as client:
            for _ in range(200):
                begun_s = time.perf_counter()
                await client.send(LIVE)
                await client.read_answer()
                waits_s.append(time.perf_counter() - begun_s)
        assert sorted(waits_s)[197] < 0.05  # C2: p99
        await crowd.ask_well(3)
        for sock in sockets[1::2]:
            sock.sendall(LIVE)
            assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")
    finally:
        for sock in sockets:
            sock.close()
    crowd.assert_unharmed()


def test_c2_over_the_cap_clients_are_told_so_within_a_second(tmp_path: Path) -> None:
    """A server that may have few descriptors."""
    limited = ("bash", "-c", 'ulimit -n 1024; exec "$@"', "bash")
    server = Server(tmp_path, config_of_server(), through=limited)
    try:
        crowd = Crowd(server.ready())
        cap = 1024 - DESCRIPTORS_KEPT
        sockets = [socket.create_connection(crowd.address, 10) for _ in range(cap + 40)]
        told = 0
        begun_s = time.monotonic()
        for sock in sockets[::-1]:
            sock.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                told += b"503" in sock.recv(4096)
            if time.monotonic() - begun_s > 0.9:
                break
        assert 30 <= told <= 41
        sockets[0].sendall(LIVE)
        sockets[0].settimeout(5)
        assert sockets[0].recv(4096).startswith(b"HTTP/1.1 200 ")
        for sock in sockets:
            sock.close()
        crowd.assert_unharmed()
    finally:
        server.close()


def test_c4_whatever_arrives_the_server_answers_others_and_keeps_nothing(server: Server) -> None:
    crowd = Crowd(server)
    chance = random.Random(4)
    for number in range(MUTATIONS):
        sent = make(chance)
        with (
            socket.create_connection(crowd.address, 10) as sock,
            contextlib.suppress(ConnectionError),
        ):
            cut = chance.randrange(len(sent) + 1)
            sock.sendall(sent[:cut])
            sock.sendall(sent[cut:])
            if number % 5:
                with contextlib.suppress(OSError):  # it was cut off before
                    sock.shutdown(socket.SHUT_WR)
                while sock.recv(65_536):
                    pass
    crowd.assert_unharmed()
