"""A server in this process and raw clients on loopback, for the tests of this folder."""

import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

import trio

from rbee.supervisor.http_server import HttpLimits, Tls, bind_sockets, serve_http

App = Callable[[Any, Any, Any], Awaitable[None]]

PATIENCE_S = 10.0  # no read in these tests may take longer
GET = b"GET / HTTP/1.1\r\nHost: rbee\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: rbee\r\nContent-Length: 6\r\n\r\n"
CLOSE = b"GET / HTTP/1.1\r\nHost: rbee\r\nConnection: close\r\n\r\n"

MOMENT_S = 0.2  # a timeout under test
AT_ONCE_S = 0.5  # what "at once" may take on a busy machine


class RecordingLog:
    """Keeps what was logged, for tests to ask."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def debug(self, event: str, **fields: Any) -> None:
        self.lines.append(("debug", event, fields))

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append(("info", event, fields))

    def warning(self, event: str, **fields: Any) -> None:
        self.lines.append(("warning", event, fields))

    def error(self, event: str, **fields: Any) -> None:
        self.lines.append(("error", event, fields))

    def of(self, event: str) -> list[dict[str, Any]]:
        return [fields for _, name, fields in self.lines if name == event]

    @property
    def errors(self) -> list[str]:
        return [event for level, event, _ in self.lines if level == "error"]


@dataclass
class Server:
    port: int
    life: trio.CancelScope
    shutdown: trio.Event = field(default_factory=trio.Event)
    ended: trio.Event = field(default_factory=trio.Event)
    log: RecordingLog = field(default_factory=RecordingLog)

    async def connect(self) -> "Client":
        return Client(await trio.open_tcp_stream("127.0.0.1", self.port))

    def connect_unseen(self) -> "Client":
        """Connect while the server has no chance to run: the kernel holds the connection."""
        sock = socket.create_connection(("127.0.0.1", self.port), PATIENCE_S)
        return Client(trio.SocketStream(trio.socket.from_stdlib_socket(sock)))

    async def answers(self) -> bool:
        """Whether a new client gets an answer."""
        async with await self.connect() as client:
            await client.send(GET)
            return (await client.read_answer()).status == 200


async def start(
    nursery: trio.Nursery,
    app: App,
    *,
    tls: Tls | None = None,
    log: RecordingLog | None = None,
    **limits: Any,
) -> Server:
    """Serve ``app`` on a free port until the test ends."""
    sockets = bind_sockets("127.0.0.1", 0, limits.get("backlog", 2048))
    server = Server(sockets[0].getsockname()[1], trio.CancelScope(), log=log or RecordingLog())

    async def run(task_status: trio.TaskStatus[None]) -> None:
        serve = partial(
            serve_http, app, sockets, HttpLimits(**limits),
            log=server.log, shutdown=server.shutdown, tls=tls, task_status=task_status,
        )  # fmt: skip
        with server.life:
            await serve()
        server.ended.set()

    await nursery.start(run)
    return server


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    chunks: list[bytes]

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = json.loads(self.body)["error"]
        return error


class Client:
    """A client that says what it is told, byte by byte."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._received = bytearray()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stream.aclose()

    async def send(self, data: bytes) -> None:
        with trio.fail_after(PATIENCE_S):
            await self.stream.send_all(data)

    def send_unseen(self, data: bytes) -> None:
        """Send while the server has no chance to run."""
        assert os.write(self.stream.socket.fileno(), data) == len(data)

    async def read_head(self) -> tuple[int, dict[str, str]]:
        lines = (await self.read_until(b"\r\n\r\n")).decode("latin1").split("\r\n")
        headers = (line.split(": ", 1) for line in lines[1:] if line)
        return int(lines[0].split(" ")[1]), {name.lower(): value for name, value in headers}

    async def read_answer(self) -> Answer:
        status, headers = await self.read_head()
        if headers.get("transfer-encoding") == "chunked":
            chunks = [chunk async for chunk in self._chunks()]
            return Answer(status, headers, b"".join(chunks), chunks)
        if "content-length" in headers:
            return Answer(status, headers, await self.read(int(headers["content-length"])), [])
        return Answer(status, headers, await self.read_all(), [])

    async def read_chunk(self) -> bytes:
        """One chunk of a body, the last being empty."""
        size = int((await self.read_until(b"\r\n"))[:-2], 16)
        return (await self.read(size + 2))[:-2]

    async def _chunks(self) -> Any:
        while chunk := await self.read_chunk():
            yield chunk

    async def read_until(self, mark: bytes) -> bytes:
        while (end := self._received.find(mark)) < 0:
            await self._receive()
        return self._take(end + len(mark))

    async def read(self, size: int) -> bytes:
        while len(self._received) < size:
            await self._receive()
        return self._take(size)

    async def read_all(self) -> bytes:
        """Everything up to the end of the connection, be it closed or reset."""
        try:
            while True:
                await self._receive()
        except (EOFError, trio.BrokenResourceError):
            return self._take(len(self._received))

    async def reset(self) -> None:
        """Go without a goodbye."""
        linger = struct.pack("ii", 1, 0)
        self.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        await self.stream.aclose()

    async def _receive(self) -> None:
        with trio.fail_after(PATIENCE_S):
            data = await self.stream.receive_some(65536)
        if not data:
            raise EOFError(f"closed after {bytes(self._received)!r}")
        self._received += data

    def _take(self, size: int) -> bytes:
        data = bytes(self._received[:size])
        del self._received[:size]
        return data


async def say_ok(scope: Any, receive: Any, send: Any) -> None:
    """The plainest app: answers without looking."""
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


async def read_body(receive: Any) -> bytes | None:
    """None: the client went away."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message["body"]
        if not message["more_body"]:
            return bytes(body)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the body it was sent."""
    body = await read_body(receive)
    if body is None:
        return
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def start_stream(scope: Any, send: Any) -> Any:
    """Start a streamed answer, and hand out its direct writer."""
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": True})
    return scope["extensions"].get("rbee.direct")


async def end_stream(send: Any) -> None:
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def never_answer(scope: Any, receive: Any, send: Any) -> None:
    await trio.sleep_forever()
