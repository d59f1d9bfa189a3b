"""The local face's listener: who may connect, how many, and how it ends.

Rule 1: the kernel says who connects: our own user and root, nobody else.
Rule 2: no client can end the face. What the system runs out of is waited for.
"""

import contextlib
import errno
import os
import resource
import socket
import struct
from pathlib import Path
from types import TracebackType
from typing import Final

import trio
from starlette.types import ASGIApp

from rbee.config import ServerConfig
from rbee.errors import RunDirError
from rbee.local_wire import SOCKET_NAME
from rbee.logs import Log
from rbee.supervisor.http_server import Bulkhead, HttpLimits, SparseLog
from rbee.supervisor.local.connection import Connection, Shared
from rbee.supervisor.local.exchange import ADDRESS

CLIENTS_MAX: Final = 256  # connected at once; `http_server.limits` leaves descriptors to them

# Clients that wait to be accepted: as many as may come together. libzmq takes a full backlog for
# no server.
_BACKLOG: Final = 1024
_ACCEPT_RETRY_S: Final = 0.1  # after the system had no descriptor for a connection
_LOOK_EVERY_S: Final = 5.0  # whether the socket is still where clients look for it
_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid: unix(7), SO_PEERCRED


class LocalSocket:
    """The socket in the run directory, listening; taken away at the end.

    Raises:
      RunDirError: it cannot be made.
    """

    def __init__(self, run_dir: Path) -> None:
        self.path: Final = run_dir / SOCKET_NAME
        self._own: os.stat_result | None = None

    def __enter__(self) -> "LocalSocket":
        try:
            self._listen()
        except OSError as error:
            raise RunDirError(f"{self.path} cannot be made: {error.strerror}") from error
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take it away: who comes from now on sees that nobody is there. Again, it does nothing."""
        self.listener.close()
        with contextlib.suppress(OSError):
            if self._is_there():
                self.path.unlink()
        self._own = None  # another's may have its number from now on

    def mend(self) -> bool:
        """Listen anew if somebody has deleted the socket. Returns: whether it is another now."""
        with contextlib.suppress(OSError):  # the run directory is gone, and will be made again
            if not self._is_there():
                before = self.listener
                self._listen()
                before.close()
                return True
        return False

    def _listen(self) -> None:
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.setblocking(False)
            listener.bind(bytes(self.path))  # in a folder that is closed to others
            self.path.chmod(0o600)
            listener.listen(_BACKLOG)
            self._own = self.path.stat()
        except OSError:
            listener.close()
            raise
        self.listener = listener

    def _is_there(self) -> bool:
        try:
            return self._own is not None and os.path.samestat(self.path.stat(), self._own)
        except FileNotFoundError:
            return False


async def serve_local(  # noqa: PLR0913  # all that a face is made of
    app: ASGIApp,
    local: LocalSocket,
    config: ServerConfig,
    limits: HttpLimits,
    *,
    log: Log,
    shutdown: trio.Event,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve local clients until ``shutdown`` is set and all running requests are answered.

    Cancelled, it closes all connections at once. The socket is gone as soon as ``shutdown`` is set.
    """
    shared = Shared(app, limits, config.body_bytes_max, config.body_timeout_s, log)
    async with trio.open_nursery() as connections:
        face = _Face(shared, local, connections)
        async with trio.open_nursery() as accepting:
            accepting.start_soon(face.accept)
            log.info("local_face", path=str(local.path))
            task_status.started()
            await shutdown.wait()
            accepting.cancel_scope.cancel(reason="shutdown")
        face.accept_last()
        local.close()
        face.drain()


def clients_max() -> int:
    """How many clients may be connected at once: few, where there are few descriptors."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return CLIENTS_MAX
    return min(CLIENTS_MAX, descriptors // 8)


def is_let_in(uid: int) -> bool:
    """Whether programs of a user may connect."""
    return uid in (0, os.geteuid())


def _uid_of(sock: socket.socket) -> int:
    """The user that connected, by the kernel's word."""
    said = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(said)[1])


class _Face:
    """The open connections, and how new ones come in."""

    def __init__(self, shared: Shared, local: LocalSocket, connections: trio.Nursery) -> None:
        self._shared = shared
        self._local = local
        self._connections = connections
        self._open: dict[Connection, None] = {}  # the oldest first
        self._clients_max = clients_max()
        self._quiet = SparseLog(shared.log)

    async def accept(self) -> None:
        """Accept until cancelled."""
        while True:
            with trio.move_on_after(_LOOK_EVERY_S) as look:
                await trio.lowlevel.wait_readable(self._local.listener)
            if look.cancelled_caught:
                if self._local.mend():
                    self._shared.log.warning("local_socket_made_again", path=str(self._local.path))
                continue
            try:
                self._admit(self._local.listener.accept()[0])
            except (BlockingIOError, ConnectionError):
                continue
            except OSError as error:
                name = errno.errorcode.get(error.errno or 0, "unknown")
                self._quiet.warning("accept_failed", error=name, face="local")
                await trio.sleep(_ACCEPT_RETRY_S)

    def accept_last(self) -> None:
        """Accept who is connected already in the kernel's eyes."""
        with contextlib.suppress(OSError):
            for _ in range(_BACKLOG):
                self._admit(self._local.listener.accept()[0])

    def drain(self) -> None:
        for connection in self._open:
            connection.drain()

    def _admit(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        if not is_let_in(_uid_of(sock)) or not self._has_room():
            sock.close()
            return
        connection = Connection(self._shared, sock)
        self._open[connection] = None
        self._connections.start_soon(self._serve, connection)

    def _has_room(self) -> bool:
        """Whether there is room for one more. The oldest idle client makes some if it must."""
        if len(self._open) < self._clients_max:
            return True
        self._quiet.warning("local_clients_full", clients_max=self._clients_max)
        idle = next((each for each in self._open if each.is_idle), None)
        if idle is None:
            return False
        del self._open[idle]
        idle.cut()
        return True

    async def _serve(self, connection: Connection) -> None:
        try:
            with Bulkhead(self._shared.log, "connection_failed", ADDRESS):
                await connection.run()
        finally:
            self._open.pop(connection, None)
