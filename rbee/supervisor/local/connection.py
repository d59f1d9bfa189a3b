"""One local client: its socket, and the one request that it asks now.

Rule 1: one task reads, also while a request is answered: so a client that goes is seen at once.
Rule 2: one request after the other. What comes meanwhile is kept within a bound, and over it the
        client is refused.
Rule 3: whatever a client sends ends nothing but its own connection.
"""

import contextlib
import math
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio
from starlette.types import ASGIApp

from rbee.errors import RemoteProtocolError
from rbee.local_wire import REQUEST_BYTES_MAX, VERSION, decode_request
from rbee.logs import Log
from rbee.supervisor.http_server import (
    BrokenReason,
    Bulkhead,
    DirectWriter,
    HttpLimits,
    Outbox,
)
from rbee.supervisor.local.exchange import ADDRESS, Exchange
from rbee.supervisor.local.zmtp import Message, ZmtpServer

_READ_BYTES: Final = 64 * 1024

# Received behind the next request, while one is being answered.
_AHEAD_BYTES_MAX: Final = 2 * _READ_BYTES

# Once the server closes: how long a client may ask again, if it may not have known, and how long
# the rest of a request may still take.
_LAST_REQUEST_S: Final = 0.5
_LAST_WHOLE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Shared:
    """What all connections have in common."""

    app: ASGIApp
    limits: HttpLimits
    body_bytes_max: int
    body_timeout_s: float
    log: Log


class Connection:
    """A client's connection.

    Args:
      sock: accepted, not blocking. Closed by `run`.
    """

    def __init__(self, shared: Shared, sock: socket.socket) -> None:
        self._shared = shared
        self._socket = sock
        self._zmtp = ZmtpServer((len(VERSION), REQUEST_BYTES_MAX, shared.body_bytes_max))
        self._outbox = Outbox(sock, shared.limits.send_deadline_s, self._start_flush, self._give_up)
        self._exchange: Exchange | None = None
        self._next: Message | None = None
        self._nursery: trio.Nursery | None = None
        self._waiting = trio.CancelScope()
        self._flushing = trio.CancelScope()
        self._is_ending = False
        self._is_draining = False
        self._is_last = False  # the request that is answered began while the server was closing
        self._is_receiving = True  # something of which the rest is waited for
        self._is_ready = False  # so it is the handshake
        self._deadline = trio.current_time() + shared.limits.headers_timeout_s

    @property
    def is_idle(self) -> bool:
        """Whether it is between two requests, and the next one is not on its way already."""
        return self._exchange is None and not self._is_receiving and not self._has_unread()

    async def run(self) -> None:
        """Serve the client until one side ends it."""
        try:
            async with trio.open_nursery() as self._nursery:
                self._outbox.push(self._zmtp.take_to_send())
                await self._read()
                self._hang_up("disconnected")
                await self._outbox.wait_flushed()
        finally:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()
            # This is in circles with its outbox, and the collector, which breaks them, comes late.
            self._zmtp.forget()
            self._next = None

    def drain(self) -> None:
        """The server closes: finish what runs, and the one request that comes at once."""
        self._is_draining = True
        if self._exchange is None:
            self._set_deadline(min(self._deadline, self._due_s()))

    def end(self) -> None:
        """Read no more, and close once the client has what it was told, or does not take it."""
        self._is_ending = True
        self._waiting.cancel(reason="the connection ends")

    def cut(self) -> None:
        """Close at once: whoever has its place now shall not wait until it reads."""
        self._outbox.give_up("disconnected")

    async def _read(self) -> None:
        """Until the client goes, its time is up, or there is another reason for an end."""
        while not self._is_ending:
            with trio.CancelScope(deadline=self._deadline) as self._waiting:
                await trio.lowlevel.wait_readable(self._socket)
            if self._is_ending:
                return  # another request behind an answer that broke off must not be begun
            is_late = self._waiting.cancelled_caught and trio.current_time() >= self._deadline
            data = self._receive_nowait()
            if data == b"" or (data is None and is_late):
                return
            self._zmtp.receive(data or b"")
            try:
                self._proceed()
            except RemoteProtocolError as error:
                self._shared.log.debug("local_client_refused", problem=str(error)[:200])
                return

    def _has_unread(self) -> bool:
        with contextlib.suppress(OSError):
            return self._socket.recv(1, socket.MSG_PEEK) != b""
        return False

    def _receive_nowait(self) -> bytes | None:
        """None: there is nothing now. Empty: the client has gone."""
        try:
            return self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def _proceed(self) -> None:
        """Act on what was received.

        Raises:
          RemoteProtocolError: what this client says, or how much, is not to be borne.
        """
        if self._next is None:
            self._next = self._zmtp.next_message()
            told = self._zmtp.take_to_send()
            if not self._outbox.parked_bytes:  # a client that does not read needs no PONG
                self._outbox.push(told)
        if self._exchange is None and self._next is not None:
            message, self._next = self._next, None
            self._begin(message)
        if self._exchange is not None:
            if self._next is not None and self._zmtp.unread_bytes > _AHEAD_BYTES_MAX:
                raise RemoteProtocolError("too much came before an answer was complete")
            return
        self._note_receiving()

    def _begin(self, message: Message) -> None:
        request = decode_request(message.frames)
        body = message.frames[-1]
        self._exchange = Exchange(
            request, body, message.dropped_bytes or len(body), self._outbox, self._make_writer
        )
        self._is_last = self._is_draining
        self._set_deadline(math.inf)
        assert self._nursery is not None
        self._nursery.start_soon(self._answer, self._exchange)

    def _make_writer(self, frame: Callable[[bytes], bytes]) -> DirectWriter:
        limits = self._shared.limits
        return DirectWriter(self._outbox, limits.parked_bytes_max, self._shared.log, frame)

    async def _answer(self, exchange: Exchange) -> None:
        with Bulkhead(self._shared.log, "request_failed", ADDRESS):
            await self._shared.app(exchange.scope, exchange.receive, exchange.send)
        self._exchange = None
        if not exchange.is_whole or self._is_last:
            self.end()  # of what is not whole the client must see no end
            return
        self._is_receiving = False
        self._set_deadline(self._due_s())
        self._waiting.cancel(reason="the next request may be here")

    def _note_receiving(self) -> None:
        """Give what is being received its time, from its begin on."""
        is_ready = self._zmtp.is_ready
        is_receiving = self._zmtp.is_in_message or not is_ready
        if is_receiving is self._is_receiving and is_ready is self._is_ready:
            return
        self._is_receiving, self._is_ready = is_receiving, is_ready
        self._set_deadline(self._due_s())

    def _due_s(self) -> float:
        """Until when what begins now, or is waited for from now on, is to have come."""
        timeout_s = self._shared.body_timeout_s if self._is_receiving else math.inf
        last_s = _LAST_WHOLE_S if self._is_receiving else _LAST_REQUEST_S
        return trio.current_time() + (min(timeout_s, last_s) if self._is_draining else timeout_s)

    def _hang_up(self, reason: BrokenReason) -> None:
        if self._exchange is not None:
            self._exchange.hang_up(reason)

    def _give_up(self, reason: BrokenReason) -> None:
        self._shared.log.debug("client_given_up", peer=ADDRESS, reason=reason)
        self._hang_up(reason)
        self._flushing.cancel(reason="the client was given up")
        self.end()

    def _start_flush(self) -> None:
        assert self._nursery is not None
        self._flushing = trio.CancelScope()
        self._nursery.start_soon(self._flush, self._flushing)

    async def _flush(self, flushing: trio.CancelScope) -> None:
        with flushing:
            await self._outbox.flush()

    def _set_deadline(self, deadline: float) -> None:
        self._deadline = deadline
        self._waiting.deadline = deadline
