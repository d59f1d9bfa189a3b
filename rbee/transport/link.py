"""The supervisor's end of a link: one bound DEALER socket in a trio task."""

import contextlib
from pathlib import Path
from typing import Final, Protocol

import trio
import zmq

from rbee.errors import LinkFullError
from rbee.wire import BODY_BYTES_MAX

# Messages that wait in ZeroMQ, beside what the kernel holds. Small: a supervisor that is slow to
# receive must slow the worker's step loop, not fill its memory. Not smaller: what a worker said
# is lost when it ends while this is used up, as libzmq then drops what the kernel still holds
# (seen in 23 of 195 endings with 40 messages waiting and room for 8, in 0 of 120 with room for 64).
RECEIVE_MESSAGES_MAX: Final = 64
# Toward the worker nothing may be refused in normal work: cancels and asks of a whole batch.
SEND_MESSAGES_MAX: Final = 4096

# The kernel's limit on the path of a unix socket (sun_path is 108 bytes with the final NUL).
SOCKET_PATH_BYTES_MAX: Final = 107


class RawSocket(Protocol):
    """What a `Link` uses of a ZeroMQ socket; a test hands in one whose edges it controls."""

    def send_multipart(self, frames: list[bytes]) -> None:
        """Raises: zmq.Again when the queue is full."""
        ...

    def recv_multipart(self) -> list[bytes]:
        """Raises: zmq.Again when there is nothing."""
        ...

    def is_readable(self) -> bool:
        """Whether EVENTS says that a message is there. Reading it may eat the edge."""
        ...

    def fileno(self) -> int: ...

    def close(self) -> None: ...


class Link:
    """One ZeroMQ socket. One task may `receive`; any task may `send`."""

    def __init__(self, socket: RawSocket) -> None:
        self._socket = socket
        self._parked: trio.CancelScope | None = None
        self._is_closed = False

    def send(self, frames: list[bytes]) -> None:
        """Queue one message. Never waits.

        Raises:
          LinkFullError: the worker has not taken what was sent before.
        """
        if self._is_closed:
            raise LinkFullError("the worker takes no messages: its link is closed")
        try:
            self._socket.send_multipart(frames)
        except zmq.Again:
            raise LinkFullError("the worker takes no messages: its queue is full") from None
        finally:
            self._wake_receiver()

    async def receive(self) -> list[bytes]:
        """Wait for one message. Cancelling it loses none.

        Raises:
          trio.ClosedResourceError: the link was closed, before or while this waited.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while (frames := self.receive_nowait()) is None:
            await self._wait_edge()
        return frames

    def receive_nowait(self) -> list[bytes] | None:
        """The next message, or None when there is none. For the receiving task alone."""
        if self._is_closed:
            raise trio.ClosedResourceError("this link is closed")
        try:
            return self._socket.recv_multipart()
        except zmq.Again:
            return None

    def close(self) -> None:
        """Close at once; what was not sent is dropped. A parked receiver is woken."""
        self._is_closed = True
        if self._parked is not None:
            trio.lowlevel.notify_closing(self._socket.fileno())
            self._parked.cancel(reason="the link was closed")
        self._socket.close()

    async def _wait_edge(self) -> None:
        assert self._parked is None, "two tasks receive on one link"
        self._parked = trio.CancelScope()
        try:
            with self._parked:
                # A message may have come between the last recv and here, its edge eaten.
                if not self._socket.is_readable():
                    with contextlib.suppress(trio.ClosedResourceError):  # `receive` will say so
                        await trio.lowlevel.wait_readable(self._socket.fileno())
        finally:
            self._parked = None

    def _wake_receiver(self) -> None:
        if self._parked is not None and self._socket.is_readable():
            self._parked.cancel(reason="a send may have eaten the edge")


class ZmqSocket:
    """A DEALER socket, set up and bound. The real `RawSocket`."""

    def __init__(
        self, context: "zmq.Context[zmq.Socket[bytes]]", path: Path, peer_pid: int
    ) -> None:
        """Bind one, for one process alone.

        Raises:
          OSError: the path or a descriptor cannot be had.
        """
        encoded = bytes(path)
        assert len(encoded) <= SOCKET_PATH_BYTES_MAX, "the run directory's path is checked before"
        try:
            self._socket = context.socket(zmq.DEALER)
        except zmq.ZMQError as error:
            raise _as_os_error(error) from error
        try:
            self._socket.setsockopt(zmq.LINGER, 0)
            self._socket.setsockopt(zmq.RCVHWM, RECEIVE_MESSAGES_MAX)
            self._socket.setsockopt(zmq.SNDHWM, SEND_MESSAGES_MAX)
            self._socket.setsockopt(zmq.MAXMSGSIZE, BODY_BYTES_MAX)
            # Before `bind`: what is set afterwards does not hold for the socket that listens.
            self._socket.setsockopt(zmq.IPC_FILTER_PID, peer_pid)
            self._socket.bind(f"ipc://{path}")
        except zmq.ZMQError as error:
            self.close()
            raise _as_os_error(error) from error

    def send_multipart(self, frames: list[bytes]) -> None:
        self._socket.send_multipart(frames, zmq.DONTWAIT)

    def recv_multipart(self) -> list[bytes]:
        return self._socket.recv_multipart(zmq.DONTWAIT)

    def is_readable(self) -> bool:
        return bool(int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)

    def fileno(self) -> int:
        return int(self._socket.getsockopt(zmq.FD))

    def close(self) -> None:
        self._socket.close(linger=0)


def _as_os_error(error: zmq.ZMQError) -> OSError:
    number = error.errno or 0
    return OSError(number, f"link: {zmq.strerror(number)}")


class LinkFactory:
    """Opens links in one run directory. Owns the ZeroMQ context.

    Raises:
      OSError: a descriptor cannot be had.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        try:
            self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        except zmq.ZMQError as error:
            raise _as_os_error(error) from error
        self._context.setsockopt(zmq.MAX_SOCKETS, 4096)

    def open(self, name: str, peer_pid: int) -> tuple[Link, Path]:
        """Bind a fresh link. Connections of other processes than the peer are closed at once.

        Returns:
          The link, and the socket's path for the worker. The caller closes the link and
          unlinks the path.

        Raises:
          OSError: the path or a descriptor cannot be had.
        """
        path = self._directory / name
        return Link(ZmqSocket(self._context, path, peer_pid)), path

    def close(self) -> None:
        self._context.destroy(linger=0)
