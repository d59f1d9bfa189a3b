"""The loop of the lane: one trio task, one epoll descriptor, all its connections.

A trio task per connection costs more than the request that it serves. Here trio waits for the
epoll descriptor alone, and each turn serves whatever is ready.

Rule 1: a turn is bounded; between two turns every other task of the supervisor runs.
        First it looks at what has come, then it does what costs much: so who asks how the server
        is does not stand in line behind those who ask for tokens.
Rule 2: what goes wrong in one connection ends that connection, and is logged.
Rule 3: who ends the lane ends its connections: none outlives `run`.
"""

import errno
import math
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import trio

from rbee.config import ServerConfig
from rbee.logs import Log
from rbee.supervisor.api.app import Face
from rbee.supervisor.api.request_body import INLINE_BYTES_MAX
from rbee.supervisor.http_server import Back, HttpLimits, SparseLog, Tls, stop_connecting
from rbee.supervisor.http_server.bulkhead import Bulkhead
from rbee.supervisor.lane.answer import DateCache
from rbee.supervisor.lane.carrier import Shared
from rbee.supervisor.lane.connection import Connection
from rbee.supervisor.lane.timers import Timers

# How long a turn may go on. What is left then comes first in the next one.
_TURN_S: Final = 0.005
_TURN_S_OF_COSTLY: Final = 0.002  # of it, or beside it, if what has come in took all of it

_EVENTS_PER_LOOK: Final = 64
_ACCEPTS_PER_LOOK: Final = 64
_ACCEPT_RETRY_S: Final = 0.1  # after the system had no descriptor or memory for a connection

_READ: Final = select.EPOLLIN
_WRITE: Final = select.EPOLLOUT
_HANG_UP: Final = select.EPOLLRDHUP


_Act = Callable[[Connection], None]


class Lane:
    """Meets every connection first, and keeps those that stay on the hot routes."""

    def __init__(  # noqa: PLR0913, PLR0917  # what all its connections share
        self,
        face: Face,
        config: ServerConfig,
        limits: HttpLimits,
        log: Log,
        shutdown: trio.Event,
        tls: Tls | None = None,
        draining: trio.Event | None = None,
    ) -> None:
        self.shared = Shared(
            face.hot, face.guard, limits, min(INLINE_BYTES_MAX, config.body_bytes_max),
            config.body_timeout_s, DateCache(time.time), log,
        )  # fmt: skip
        self.is_closing = False
        self._tls = tls
        self._shutdown = shutdown
        self._draining = shutdown if draining is None else draining
        self._quiet = SparseLog(log)
        self._open: dict[int, Connection] = {}
        self._masks: dict[int, int] = {}  # what is waited for, by descriptor
        self._timers: Timers[Connection] = Timers()
        self._soon: list[Connection] = []
        self._work: deque[tuple[Connection, _Act]] = deque()  # found, and not done yet
        self._in_turn: deque[Connection] = deque()
        self._listeners: dict[int, socket.socket] = {}
        self._accept_again_s: float | None = None
        self._wake_s = -math.inf  # until when the loop sleeps; it does not while a turn runs

    @property
    def open_connections(self) -> int:
        return len(self._open)

    async def run(self, listeners: Sequence[socket.socket], back: Back) -> None:
        """Serve until shutdown, and until what is open then has ended.

        Cancelled, it closes all connections at once.

        Args:
          listeners: bound and listening, not blocking. Closed at the end.
          back: who takes the connections that are not for the lane.
        """
        self._back = back
        self._listeners = {each.fileno(): each for each in listeners}
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        try:
            self._epoll.register(self._wake_fd, _READ)
            for fd in self._listeners:
                self._epoll.register(fd, _READ)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._close_at_shutdown)
                while self._listeners or self._open:
                    await self._wait()
                    self._turn()
                nursery.cancel_scope.cancel(reason="the last connection has ended")
        finally:
            for connection in list(self._open.values()):
                self._run(connection, _shut_down)
            for listener in self._listeners.values():
                listener.close()
            self._epoll.close()
            os.close(self._wake_fd)

    # --- for connections: see `Carrier`

    def watch(self, connection: Connection) -> None:
        fd = connection.sock.fileno()
        if fd not in self._masks:
            return  # closed, or handed over
        mask = _READ if connection.wants_to_read else 0
        mask |= _HANG_UP if connection.is_held_back else 0
        mask |= _WRITE if connection.wants_to_write else 0
        if mask != self._masks[fd]:
            self._masks[fd] = mask
            self._epoll.modify(fd, mask)
        self._timers.arm(connection, connection.due_s)
        if self._timers.next_s < self._wake_s:
            self._wake()

    def call_soon(self, connection: Connection) -> None:
        self._soon.append(connection)
        self._wake()

    def call_in_turn(self, connection: Connection) -> None:
        self._in_turn.append(connection)
        self._wake()

    def hand_over(self, connection: Connection, received: bytes) -> None:
        self.forget(connection)
        try:
            self._back.adopt(connection.sock, connection.peer, received)
        except BaseException:
            connection.sock.close()
            raise

    def forget(self, connection: Connection) -> None:
        fd = connection.sock.fileno()
        if self._open.pop(fd, None) is not None:
            del self._masks[fd]
            self._epoll.unregister(fd)
            self._timers.disarm(connection)
            if not self._open:
                self._wake()

    # --- the loop

    async def _wait(self) -> None:
        """Let the other tasks run, until there is something to do."""
        if self._work or self._soon or self._in_turn:
            await trio.lowlevel.checkpoint()
            return
        self._wake_s = self._timers.next_s
        if self._accept_again_s is not None:
            self._wake_s = min(self._wake_s, self._accept_again_s)
        with trio.move_on_at(self._wake_s):
            await trio.lowlevel.wait_readable(self._epoll.fileno())
        self._wake_s = -math.inf

    def _wake(self) -> None:
        if self._wake_s > -math.inf:
            os.eventfd_write(self._wake_fd, 1)

    def _turn(self) -> None:
        work, in_turn = self._work, self._in_turn
        if not work:
            self._look()
        began_s = now_s = trio.current_time()
        while work and now_s < began_s + _TURN_S:
            self._run(*work.popleft())
            now_s = trio.current_time()
        until_s = max(began_s + _TURN_S, now_s + _TURN_S_OF_COSTLY)
        while in_turn and now_s < until_s:
            self._run(in_turn.popleft(), Connection.take_turn)
            now_s = trio.current_time()

    def _look(self) -> None:
        """Find out what there is to do."""
        work = self._work
        for fd, mask in self._epoll.poll(0, _EVENTS_PER_LOOK):
            connection = self._open.get(fd)
            if connection is not None:
                if mask & _WRITE:
                    work.append((connection, Connection.writable))
                if mask & _HANG_UP:
                    work.append((connection, Connection.hung_up))
                elif mask & ~_WRITE:  # also where something is wrong: reading says what
                    work.append((connection, Connection.readable))
            elif fd in self._listeners:
                self._accept(self._listeners[fd], _ACCEPTS_PER_LOOK)
            elif fd == self._wake_fd:
                os.eventfd_read(self._wake_fd)
        soon, self._soon = self._soon, []
        work.extend([(connection, Connection.proceed) for connection in soon])
        now_s = trio.current_time()
        work.extend([(connection, Connection.expire) for connection in self._timers.expired(now_s)])
        if self._accept_again_s is not None and now_s >= self._accept_again_s:
            self._accept_again_s = None
            self._listen(_READ)

    def _run(self, connection: Connection, act: _Act) -> None:
        try:
            act(connection)
        except Exception:  # rule 2
            with Bulkhead(self.shared.log, "connection_failed", connection.peer_name):
                raise
            with Bulkhead(self.shared.log, "connection_failed", connection.peer_name):
                connection.abort("internal_error")
            connection.close()

    def _accept(self, listener: socket.socket, count: int) -> None:
        try:
            for _ in range(count):
                self._admit(*listener.accept())
        except (BlockingIOError, ConnectionError):
            return  # no more for now; or a client that did not wait
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, "unknown")
            self._quiet.warning("accept_failed", error=name, open=len(self._open))
            self._accept_again_s = trio.current_time() + _ACCEPT_RETRY_S
            self._listen(0)

    def _admit(self, sock: socket.socket, address: Any) -> None:  # noqa: ANN401  # per family
        sock.setblocking(False)
        if self._back.is_full:
            self._back.turn_away(sock)
            return
        peer = address[:2] if isinstance(address, tuple) else None
        if self._tls is not None:
            wrapped = self._tls.wrap(sock, peer)
            if wrapped is None:
                return
            sock = wrapped
        connection = Connection(self, sock, peer)
        if self._draining.is_set():
            connection.close_after()
        fd = sock.fileno()
        try:
            self._epoll.register(fd, _READ)
        except OSError:
            sock.close()
            raise
        self._open[fd] = connection
        self._masks[fd] = _READ
        self._timers.arm(connection, connection.due_s)
        self._work.append((connection, Connection.readable))  # most have sent their request already

    def _listen(self, mask: int) -> None:
        for fd in self._listeners:
            self._epoll.modify(fd, mask)

    async def _close_at_shutdown(self) -> None:
        await self._draining.wait()
        for connection in list(self._open.values()):
            connection.close_after()
        await self._shutdown.wait()
        while self._listeners:
            _, listener = self._listeners.popitem()
            # Who is connected already in the kernel's eyes would be reset by closing.
            stop_connecting(listener)
            self._accept(listener, self.shared.limits.backlog)
            self._epoll.unregister(listener)
            listener.close()
        self.is_closing = True
        for connection in list(self._open.values()):
            self._run(connection, Connection.drain)
        self._wake()


def _shut_down(connection: Connection) -> None:
    connection.abort("shut_down")
