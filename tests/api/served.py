"""The whole face on a port of this machine, with or without the lane, before a fake generator."""

import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import openai
import trio

from rbee.config import ServerConfig
from rbee.supervisor.api.app import Face, make_face
from rbee.supervisor.http_server import HttpLimits, bind_sockets, serve_http
from rbee.supervisor.lane import Lane
from tests.api.face import CHAT, FakeOperations, LogLines
from tests.api.fake_generator import Asked, FakeGenerator
from tests.http_server.harness import Client

Answer = Callable[[Asked], None]

LIVE = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
ELSEWHERE = b"GET /v1/models/bee-tiny HTTP/1.1\r\nHost: localhost\r\n\r\n"  # not on a hot route


@dataclass
class Served:
    """A running server, and what stands behind it."""

    generator: FakeGenerator
    face: Face
    lane: Lane | None
    port: int
    log: LogLines
    shutdown: trio.Event = field(default_factory=trio.Event)
    life: trio.CancelScope = field(default_factory=trio.CancelScope)
    ended: trio.Event = field(default_factory=trio.Event)

    @property
    def errors(self) -> list[Any]:
        return [line for line in self.log.lines if line[0] == "error"]

    def openai(self) -> openai.OpenAI:
        url = f"http://127.0.0.1:{self.port}/v1"
        return openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=10)

    async def connect(self, *, receive_bytes: int = 0) -> Client:
        """Connect.

        Args:
          receive_bytes: a small window, so that what is not read stays at the server.
        """
        sock = trio.socket.socket()
        if receive_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        try:
            await sock.connect(("127.0.0.1", self.port))
        except BaseException:
            sock.close()
            raise
        return Client(trio.SocketStream(sock))

    def connect_unseen(self) -> Client:
        """Connect while the server has no chance to run: the kernel holds the connection."""
        sock = socket.create_connection(("127.0.0.1", self.port), 10)
        return Client(trio.SocketStream(trio.socket.from_stdlib_socket(sock)))

    async def is_alive(self) -> bool:
        """Whether a new client gets an answer."""
        async with await self.connect() as client:
            await client.send(LIVE)
            return (await client.read_answer()).status == 200


class Serving(Protocol):
    def __call__(
        self, answer: Answer | None = None, **limits: Any
    ) -> AbstractAsyncContextManager[Served]: ...


def chat(
    *, version: bytes = b"1.1", headers: bytes = b"", path: bytes = b"/v1/chat/completions",
    **body: Any,
) -> bytes:  # fmt: skip
    """A POST to the chat route."""
    raw = json.dumps({**CHAT, **body}).encode()
    head = b"POST %b HTTP/%b\r\nHost: localhost\r\n%bContent-Length: %d\r\n\r\n"
    return head % (path, version, headers, len(raw)) + raw


@asynccontextmanager
async def serve_face(
    answer: Answer | None = None,
    *,
    has_lane: bool = True,
    config: ServerConfig | None = None,
    generator: FakeGenerator | None = None,
    patience_s: float = 20,
    draining: trio.Event | None = None,
    unix_clock: Callable[[], float] = lambda: 1_900_000_000.0,
    surroundings: Mapping[str, Any] | None = None,
    **limits: Any,
) -> AsyncIterator[Served]:
    """Serve on a free port; ``answer`` is called with each ask once it was taken.

    Args:
      draining: set before the shutdown, if at all.
      surroundings: what else `make_face` gets.
    """
    generator, log, config = generator or FakeGenerator(), LogLines(), config or ServerConfig()
    sockets = bind_sockets("127.0.0.1", 0, limits.get("backlog", 2048))
    port = sockets[0].getsockname()[1]
    face = make_face(
        generator, FakeOperations(), config, log,
        unix_clock=unix_clock, **(surroundings or {}),
    )  # fmt: skip
    served = Served(generator, face, None, port, log)
    http_limits = HttpLimits(**limits)
    if has_lane:
        served.lane = Lane(face, config, http_limits, log, served.shutdown, None, draining)

    async def serve(*, task_status: trio.TaskStatus[None]) -> None:
        with served.life:
            await serve_http(
                face.app, sockets, http_limits, log=log, shutdown=served.shutdown,
                draining=draining, front=served.lane, task_status=task_status,
            )  # fmt: skip
        served.ended.set()

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
            with trio.fail_after(patience_s):
                yield served
        finally:
            nursery.cancel_scope.cancel(reason="the test is over")


def count_to_five(asked: Asked) -> None:
    for number in range(1, 6):
        asked.push(f"{number} ", finish="stop" if number == 5 else None)
