"""One request of a local client in ASGI's terms, and its answer in the client's.

Rule: the headers are made here, of what a request may say; so no client brings another one.
"""

from collections.abc import Callable
from typing import Final

import trio
from starlette.types import Message, Scope

from rbee.local_wire import End, FromServer, Head, Part, Request, encode_answer
from rbee.supervisor.api.asgi import DELIVERY, FACE
from rbee.supervisor.api.asgi_reply import DIRECT
from rbee.supervisor.http_server import BrokenReason, DirectWriter, Outbox
from rbee.supervisor.local.zmtp import write_message

ADDRESS: Final = "local"  # of all clients: who they are, their keys say

_HEADERS: Final = (
    ("authorization", b"authorization"),
    ("correlation_id", b"x-correlation-id"),
    ("timeout", b"x-request-timeout"),
    ("deadline", b"x-request-deadline"),
)
_OF_HTTP_ALONE: Final = frozenset({b"connection", b"content-length"})


class Exchange:
    """A request, and how far its answer is.

    Args:
      body_bytes: of the request's body as it was sent; ``body`` is empty where it was too long.
      make_writer: makes the direct writer, of what frames a part.
    """

    def __init__(
        self,
        request: Request,
        body: bytes,
        body_bytes: int,
        outbox: Outbox,
        make_writer: Callable[[Callable[[bytes], bytes]], DirectWriter],
    ) -> None:
        self._body: bytes | None = body
        self._outbox = outbox
        self._writer = make_writer(lambda payload: as_bytes(Part(payload)))
        self._head = b""
        self._gone = trio.Event()
        self.is_whole = False
        self.scope: Final = _scope(request, body_bytes)
        self.scope["extensions"] |= {DIRECT: self._writer, DELIVERY: outbox}

    def hang_up(self, reason: BrokenReason) -> None:
        """The client is gone, or given up: tell the app."""
        self._gone.set()
        self._writer.break_off(reason)

    async def receive(self) -> Message:
        body, self._body = self._body, None
        if body is not None:
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Send what is said, and wait until the kernel has it, or the client was given up."""
        if message["type"] == "http.response.start":
            self._head = as_bytes(Head(message["status"], _fields(message["headers"])))
            return
        data = message.get("body", b"")
        told = self._head + (as_bytes(Part(data)) if data else b"")
        self._head = b""
        if message.get("more_body", False):
            self._writer.open()
        else:
            self._writer.close()
            self.is_whole = True
            told += as_bytes(End())
        self._outbox.push(told)
        await self._outbox.wait_flushed()


def as_bytes(message: FromServer) -> bytes:
    return write_message(encode_answer(message))


def _scope(request: Request, body_bytes: int) -> Scope:
    path, _, query = request.path.partition("?")
    headers = [(b"host", b"localhost"), (b"content-length", b"%d" % body_bytes)]
    if body_bytes:
        headers.append((b"content-type", b"application/json"))
    for name, header in _HEADERS:
        if value := getattr(request, name):
            headers.append((header, value.encode("latin-1")))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("ascii"),
        "query_string": query.encode("ascii"),
        "root_path": "",
        "headers": headers,
        "client": (ADDRESS, 0),
        "server": None,
        "extensions": {FACE: "local"},
    }


def _fields(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for name, value in headers:
        if name not in _OF_HTTP_ALONE:
            key, text = name.decode("latin-1"), value.decode("latin-1")
            fields[key] = f"{fields[key]}, {text}" if key in fields else text
    return fields
