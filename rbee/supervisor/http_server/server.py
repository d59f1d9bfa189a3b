"""Accepts connections, keeps their number bounded, and ends them at shutdown.

Rule 1: the nesting is the order of shutdown: first nobody is accepted, then what runs ends.
Rule 2: no connection can end the server; see `bulkhead`.
Rule 3: a client over the cap is told so at once, and costs the others nothing.
"""

import errno
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext

from rbee.errors import ErrorCode
from rbee.logs import Log
from rbee.supervisor.http_server.bulkhead import Bulkhead
from rbee.supervisor.http_server.connection import Connection
from rbee.supervisor.http_server.guard import error_answer
from rbee.supervisor.http_server.hang_ups import HangUps
from rbee.supervisor.http_server.limits import HttpLimits, connections_max
from rbee.supervisor.http_server.protocol import Surroundings
from rbee.supervisor.http_server.sockets import stop_connecting, tune
from rbee.supervisor.http_server.tls import Tls

_ACCEPT_BATCH: Final = 64  # between two looks at everything else
_ACCEPT_RETRY_S: Final = 0.1  # after the system had no descriptor or memory for a connection
_TURNED_AWAY_MAX: Final = 64  # refused connections that are seen off politely at once
_RETRY_AFTER_S: Final = 1
_LOG_EVERY_S: Final = 10.0


ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]


class Back(Protocol):
    """What a `Front` does not keep."""

    @property
    def is_full(self) -> bool:
        """Whether there are as many connections as there may be, here and in front."""
        ...

    def adopt(self, sock: socket.socket, peer: tuple[str, int] | None, received: bytes) -> None:
        """Carry on with a connection, of which ``received`` was read already."""
        ...

    def turn_away(self, sock: socket.socket) -> None:
        """Tell a client that we are full."""
        ...


class Front(Protocol):
    """Who meets all connections first."""

    @property
    def open_connections(self) -> int: ...

    async def run(self, listeners: Sequence[socket.socket], back: Back) -> None:
        """Accept until shutdown; return when the last connection of its own has ended."""
        ...


async def serve_http(  # noqa: PLR0913  # all that a server is made of
    app: ASGIApp,
    sockets: Sequence[socket.socket],
    limits: HttpLimits,
    *,
    log: Log,
    shutdown: trio.Event,
    draining: trio.Event | None = None,
    front: Front | None = None,
    tls: Tls | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``app`` until ``shutdown`` is set and all running requests are answered.

    Cancelled, it closes all connections at once. Owns ``sockets``: they are closed at the
    end. The app gets no lifespan events.

    Args:
      sockets: bound and listening.
      draining: set before ``shutdown``: connections end with the next answer that they begin,
        which says so, and none that a client may be asking on already.
      front: accepts in our place, and hands over what it does not keep.
      tls: all connections speak TLS under it. A front wraps what it accepts itself.
    """
    hang_ups = HangUps()
    config, context = _hypercorn_config(limits), WorkerContext(max_requests=None)
    surroundings = Surroundings(
        ASGIWrapper(app), config, context, limits, log, shutdown,
        shutdown if draining is None else draining, hang_ups, is_tls=tls is not None,
    )  # fmt: skip
    server = _Server(surroundings, front, tls)
    for listener in sockets:
        tune(listener)
    try:
        async with trio.open_nursery() as watch:
            watch.start_soon(hang_ups.run)
            async with trio.open_nursery() as server.connections:
                if front is None:
                    await server.accept_until_shutdown(sockets, task_status)
                else:
                    server.connections.start_soon(front.run, sockets, server)
                    task_status.started()
                    await shutdown.wait()
                server.drain()
            watch.cancel_scope.cancel(reason="the last connection has ended")
    finally:
        hang_ups.close()
        for listener in sockets:
            listener.close()


class _Server:
    """The open connections, and how new ones come in."""

    connections: trio.Nursery

    def __init__(self, surroundings: Surroundings, front: Front | None, tls: Tls | None) -> None:
        self._surroundings = surroundings
        self._front = front
        self._tls = tls
        self._limits = surroundings.limits
        self._log = surroundings.log
        self._connections_max = connections_max(surroundings.limits)
        self._open: set[Connection] = set()
        self._turned_away = 0
        self._quiet = SparseLog(surroundings.log)

    @property
    def is_full(self) -> bool:
        in_front = self._front.open_connections if self._front is not None else 0
        return len(self._open) + in_front >= self._connections_max

    async def accept_until_shutdown(
        self, sockets: Sequence[socket.socket], task_status: trio.TaskStatus[None]
    ) -> None:
        async with trio.open_nursery() as listeners:
            for listener in sockets:
                listeners.start_soon(self.accept_from, listener)
            task_status.started()
            await self._surroundings.shutdown.wait()
            listeners.cancel_scope.cancel(reason="shutdown")
        for listener in sockets:
            self.accept_last(listener)
            listener.close()

    async def accept_from(self, listener: socket.socket) -> None:
        """Accept until cancelled, whatever the system runs out of."""
        while True:
            await trio.lowlevel.wait_readable(listener)
            try:
                for _ in range(_ACCEPT_BATCH):
                    self._admit(*listener.accept())
            except (BlockingIOError, ConnectionError):
                continue  # no more for now; or a client that did not wait
            except OSError as error:
                name = errno.errorcode.get(error.errno or 0, "unknown")
                self._quiet.warning("accept_failed", error=name, open=len(self._open))
                await trio.sleep(_ACCEPT_RETRY_S)

    def accept_last(self, listener: socket.socket) -> None:
        """Accept who is connected already in the kernel's eyes: closing would reset them."""
        stop_connecting(listener)
        try:
            for _ in range(self._limits.backlog):
                self._admit(*listener.accept())
        except OSError:
            return

    def drain(self) -> None:
        for connection in self._open:
            connection.drain()

    def _admit(self, sock: socket.socket, address: Any) -> None:  # noqa: ANN401  # per family
        sock.setblocking(False)
        peer = address[:2] if isinstance(address, tuple) else None
        if self.is_full:
            self.turn_away(sock)
        elif self._tls is None:
            self.adopt(sock, peer, b"")
        elif (wrapped := self._tls.wrap(sock, peer)) is not None:
            self.adopt(wrapped, peer, b"")

    def adopt(self, sock: socket.socket, peer: tuple[str, int] | None, received: bytes) -> None:
        try:
            connection = Connection(self._surroundings, sock, peer, received)
        except OSError:
            sock.close()  # the client is gone already
            return
        self._open.add(connection)
        if self._surroundings.shutdown.is_set():
            connection.drain()
        self.connections.start_soon(self._serve, connection)

    async def _serve(self, connection: Connection) -> None:
        try:
            with Bulkhead(self._log, "connection_failed", connection.peer):
                await connection.run()
        finally:
            self._open.discard(connection)

    def turn_away(self, sock: socket.socket) -> None:
        self._quiet.warning("connections_full", connections_max=self._connections_max)
        # Under TLS nothing can be said before a handshake, and that costs more than an answer.
        if self._turned_away >= _TURNED_AWAY_MAX or self._tls is not None:
            sock.close()
            return
        self._turned_away += 1
        self.connections.start_soon(self._see_off, sock)

    async def _see_off(self, sock: socket.socket) -> None:
        """Say that we are full, and give the client time to read it."""
        message = "the server has too many connections; try again"
        answer = error_answer(503, ErrorCode.QUEUE_FULL, message, retry_after_s=_RETRY_AFTER_S)
        try:
            with sock, trio.move_on_after(self._limits.linger_s):
                sock.send(answer)
                sock.shutdown(socket.SHUT_WR)
                await trio.lowlevel.wait_readable(sock)
                while sock.recv(4096):
                    await trio.lowlevel.wait_readable(sock)
        except OSError:
            return  # the client is gone already
        finally:
            self._turned_away -= 1


class SparseLog:
    """Says each thing at most every `_LOG_EVERY_S`, and how often it happened meanwhile."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._due_s: dict[str, float] = {}
        self._count: dict[str, int] = {}

    def warning(self, event: str, **fields: object) -> None:
        self._count[event] = self._count.get(event, 0) + 1
        now_s = trio.current_time()
        if now_s >= self._due_s.get(event, now_s):
            self._log.warning(event, times=self._count.pop(event), **fields)
            self._due_s[event] = now_s + _LOG_EVERY_S


def _hypercorn_config(limits: HttpLimits) -> Config:
    config = Config()
    config.h11_max_incomplete_size = limits.header_bytes_max
    config.include_server_header = False
    config.accesslog = None
    config.errorlog = None  # we log; see `bulkhead`
    return config
