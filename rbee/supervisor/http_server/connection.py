"""One connection from accept to close. Takes the place of hypercorn's `TCPServer`.

Rule 1: one task reads. It never waits for a client while an app could be told of its going. What
        comes ahead of an answer is read within a bound, and then left to the kernel.
Rule 2: the app of each request runs in a task of this connection, and ends with it.
Rule 3: every wait for a client has a limit: for a head, between requests, for a client that
        does not read (`outbox`), for one that goes on talking after our last word. While a
        request runs, the app sets the limits.
"""

import enum
import math
import socket
import struct
from typing import Final

import trio
from hypercorn.config import Config
from hypercorn.typing import AppWrapper, Scope

from rbee.errors import RequestError
from rbee.supervisor.http_server.bulkhead import Bulkhead
from rbee.supervisor.http_server.inbox import Inbox
from rbee.supervisor.http_server.outbox import BrokenReason, DirectWriter, Outbox
from rbee.supervisor.http_server.protocol import Http1Protocol, Put, Send, Surroundings

# Extensions of the ASGI scope: the direct writer, and the outbox, for whether answers arrive.
DIRECT: Final = "rbee.direct"
DELIVERY: Final = "rbee.delivery"

_READ_BYTES: Final = 64 * 1024

# Once the server closes: how long after an answer a client may ask again, if it was not told that
# it was the last one; how long a request may be under way already; and how long the head of one,
# or its body, may still take.
_NEXT_REQUEST_S: Final = 0.5
_LAST_REQUEST_S: Final = 0.05
_LAST_PART_S: Final = 1.0

_ABORT: Final = struct.pack("ii", 1, 0)  # SO_LINGER: closing throws away what was not sent


class _Phase(enum.Enum):
    IDLE = enum.auto()  # between requests
    HEAD = enum.auto()  # a request's head is coming, or is expected: the first one
    REQUEST = enum.auto()  # the app is answering


class Connection:
    """A client's connection.

    Args:
      sock: the accepted socket, not blocking. Closed by `run`.
      received: what was read from it already.
    """

    def __init__(
        self,
        surroundings: Surroundings,
        sock: socket.socket,
        peer: tuple[str, int] | None,
        received: bytes = b"",
    ) -> None:
        limits = surroundings.limits
        self.peer = f"{peer[0]}:{peer[1]}" if peer else "unix"
        self.writer: DirectWriter | None = None
        self.has_hung_up = False
        self.outbox = Outbox(sock, limits.send_deadline_s, self._start_flush, self._give_up)
        self._socket = sock
        self._limits = limits
        self._log = surroundings.log
        self._shutdown = surroundings.shutdown
        self._hang_ups = surroundings.hang_ups
        self._protocol = Http1Protocol(surroundings, self, peer, _address_of(sock))
        self._received = received
        self._inbox: Inbox | None = None
        self._nursery: trio.Nursery | None = None
        self._waiting = trio.CancelScope()
        self._flushing = trio.CancelScope()
        self._is_ending = False
        self._phase = _Phase.HEAD
        self._deadline = trio.current_time() + limits.headers_timeout_s

    async def run(self) -> None:
        """Serve the client until one side ends it."""
        try:
            async with trio.open_nursery() as self._nursery:
                await self._read()
                if self._is_ending:
                    await self._see_off()
                self._hang_up("disconnected")
        finally:
            self._close()

    def drain(self) -> None:
        """The server closes: finish what runs, and what comes at once."""
        now = trio.current_time()
        if self._phase is _Phase.HEAD:  # begun, or expected: who has just connected will speak
            self._set_deadline(min(self._deadline, now + _LAST_PART_S))
        elif self._phase is _Phase.REQUEST:
            self._limit_body()
        else:
            idle_since = self._deadline - self._limits.keep_alive_s
            self._set_deadline(max(idle_since + _NEXT_REQUEST_S, now + _LAST_REQUEST_S))

    async def spawn_app(self, app: AppWrapper, config: Config, scope: Scope, send: Send) -> Put:
        """Run the app for one request. Called by hypercorn as its task group."""
        del config
        assert self._nursery is not None
        assert scope["type"] == "http"
        self._phase = _Phase.REQUEST
        self._set_deadline(math.inf)
        self._inbox = Inbox(self._limits.unread_bytes_max)
        scope["extensions"][DELIVERY] = self.outbox  # type: ignore[assignment]
        if scope["http_version"] == "1.1" and scope["method"] != "HEAD":
            self.writer = DirectWriter(self.outbox, self._limits.parked_bytes_max, self._log)
            scope["extensions"][DIRECT] = self.writer  # type: ignore[assignment]
        self._nursery.start_soon(self._run_app, app, scope, self._inbox, send)
        return self._inbox.put

    def end_request(self, *, can_go_on: bool) -> None:
        """The answer is complete, or never will be."""
        if self._inbox is not None:
            self._inbox.hang_up()
        self.writer = None
        if not can_go_on:
            self._end()
            return
        self._phase = _Phase.IDLE
        is_closing = self._shutdown.is_set()
        timeout_s = _NEXT_REQUEST_S if is_closing else self._limits.keep_alive_s
        self._set_deadline(trio.current_time() + timeout_s)
        if self._protocol.has_unread:
            self._waiting.cancel(reason="the next request is here")

    def fail_body(self, fault: RequestError) -> None:
        """The rest of a request's body cannot be had: the app is to say so."""
        assert self._inbox is not None
        self._inbox.fail(fault)

    def note_refusal(self, status: int) -> None:
        """The protocol refused a request."""
        self._log.debug("request_refused", peer=self.peer, status=status)
        self._hang_up("disconnected")
        self._end()

    async def _read(self) -> None:
        if self._received:
            self._protocol.receive(self._received)
            self._received = b""
            await self._protocol.proceed()
            self._limit_body()
        while not self._is_ending:
            with trio.CancelScope(deadline=self._deadline) as self._waiting:
                if self._protocol.is_full:
                    await self._hang_ups.wait(self._socket)
                    return
                await trio.lowlevel.wait_readable(self._socket)
            if not self._protocol.is_full and not self._hear():
                return
            await self._protocol.proceed()
            self._notice_head()
            self._limit_body()

    def _hear(self) -> bool:
        """False: the client has gone, or has said nothing in its time."""
        is_late = self._waiting.cancelled_caught and trio.current_time() >= self._deadline
        data = self._receive_nowait()
        if data:
            self._protocol.receive(data)
        elif data is not None:
            return False
        elif is_late:  # and not only we: what had come in time was answered
            if not self._protocol.is_in_body:
                return False
            self._protocol.give_up_body()
        return True

    def _receive_nowait(self) -> bytes | None:
        """None: there is nothing now. Empty: the client has gone."""
        try:
            return self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            self.outbox.give_up("disconnected")
            return b""

    def _notice_head(self) -> None:
        if self._phase is _Phase.IDLE and self._protocol.has_unread:
            self._phase = _Phase.HEAD
            is_last = self._shutdown.is_set()
            timeout_s = _LAST_PART_S if is_last else self._limits.headers_timeout_s
            self._set_deadline(trio.current_time() + timeout_s)

    def _limit_body(self) -> None:
        """While the server closes, give a body its last time; of one that has come, take it off."""
        if self._phase is not _Phase.REQUEST:
            return
        if not self._protocol.is_in_body:
            self._set_deadline(math.inf)
        elif self._shutdown.is_set() and self._deadline == math.inf:
            self._set_deadline(trio.current_time() + _LAST_PART_S)

    async def _run_app(self, app: AppWrapper, scope: Scope, inbox: Inbox, send: Send) -> None:
        with Bulkhead(self._log, "request_failed", self.peer):
            await app(scope, inbox.receive, send, trio.to_thread.run_sync, trio.from_thread.run)
        await send(None)

    def _end(self) -> None:
        """Read no more, send what is left, close."""
        self._is_ending = True
        self._waiting.cancel(reason="the connection ends")

    async def _see_off(self) -> None:
        """Close so that the client can read our last word, even while it is still talking."""
        await self.outbox.wait_flushed()
        is_talking = not self._protocol.has_whole_request or self._protocol.has_unread
        if self.outbox.broken is None and is_talking:
            await self._linger()
        self._close()

    async def _linger(self) -> None:
        """Let the client talk to the wall: closing now would reset, and lose our answer."""
        with trio.move_on_after(self._limits.linger_s):
            try:
                self._socket.shutdown(socket.SHUT_WR)
                while True:
                    await trio.lowlevel.wait_readable(self._socket)
                    if not self._socket.recv(_READ_BYTES):
                        return
            except OSError:
                return

    def _hang_up(self, reason: BrokenReason) -> None:
        """Tell the app that its client is gone."""
        self.has_hung_up = True
        if self._inbox is not None:
            self._inbox.hang_up()
        if self.writer is not None:
            self.writer.break_off(reason)

    def _start_flush(self) -> None:
        assert self._nursery is not None
        self._flushing = trio.CancelScope()
        self._nursery.start_soon(self._flush, self._flushing)

    async def _flush(self, flushing: trio.CancelScope) -> None:
        with flushing:
            await self.outbox.flush()

    def _give_up(self, reason: BrokenReason) -> None:
        self._log.debug("client_given_up", peer=self.peer, reason=reason)
        self._hang_up(reason)
        self._flushing.cancel(reason="the client was given up")
        self._end()

    def _set_deadline(self, deadline: float) -> None:
        self._deadline = deadline
        self._waiting.deadline = deadline

    def _close(self) -> None:
        if self._socket.fileno() < 0:
            return
        if self.outbox.broken is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()


def _address_of(sock: socket.socket) -> tuple[str, int] | None:
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    host, port = sock.getsockname()[:2]
    return host, port
