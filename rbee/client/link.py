"""One ZeroMQ connection to the server. Nothing here waits: it says what is to be waited for.

Rule: whoever waits has asked `receive` before, and found nothing: any call on the socket may have
      eaten the news.
"""

import contextlib
import os
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import zmq

from rbee.client.errors import ServerGoneError
from rbee.client.place import check_place
from rbee.local_wire import PART_BYTES_MAX

# Messages that wait here for a program that does not read; what is behind them waits at the
# server, which has its own bound.
_MESSAGES_MAX: Final = 1000

_OPTIONS: Final = (
    (zmq.LINGER, 0),  # closing is how a request is cancelled
    (zmq.IMMEDIATE, 1),  # nothing is queued for a server that is not there
    (zmq.RECONNECT_IVL, -1),  # an answer that was lost does not come after all
    (zmq.RCVHWM, _MESSAGES_MAX),
    (zmq.MAXMSGSIZE, PART_BYTES_MAX),
)

Context = zmq.Context[zmq.Socket[bytes]]


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait until a descriptor is readable, or the time is over; ``timeout_s`` None: for ever."""

    fd: int
    timeout_s: float | None


T = TypeVar("T")
Steps = Generator[Wait, bool, T]


class Link:
    """A DEALER socket that is connecting, connected, or gone."""

    def __init__(self, context: Context, path: Path) -> None:
        check_place(path)
        try:
            self._socket = context.socket(zmq.DEALER)
        except zmq.ZMQError as error:
            raise ServerGoneError(f"no connection can be made: {error.strerror}") from error
        self._pid = os.getpid()
        self._is_cut = False
        self._is_awaited = False
        self._endpoint = f"ipc://{path}"
        for option, value in _OPTIONS:
            self._socket.setsockopt(option, value)
        self._socket.connect(self._endpoint)
        self._fd = int(self._socket.getsockopt(zmq.FD))

    @property
    def is_connected(self) -> bool:
        """Whether a server is there. Also False while one is being connected to."""
        return bool(self._events() & zmq.POLLOUT)

    @property
    def is_closed(self) -> bool:
        return bool(self._socket.closed)

    def wait(self, timeout_s: float | None) -> Steps[bool]:
        """Until there may be news. Returns: False: the time is over."""
        self._is_awaited = True
        try:
            return (yield Wait(self._fd, timeout_s))
        finally:
            self._is_awaited = False

    def send(self, frames: list[bytes]) -> None:
        """Send one message. Raises: ServerGoneError."""
        try:
            self._socket.send_multipart(frames, zmq.DONTWAIT)
        except zmq.Again:
            raise ServerGoneError("the server has ended the connection") from None

    def receive(self) -> list[bytes] | None:
        """The next message; None: there is none now.

        Raises:
          ServerGoneError: there will be none.
        """
        events = self._events()
        if events & zmq.POLLIN:
            return self._socket.recv_multipart(zmq.DONTWAIT)
        if not events & zmq.POLLOUT:
            raise ServerGoneError("the server ended the connection before its answer was whole")
        return None

    def cut(self) -> None:
        """End the connection. Whoever waits is woken, and closes the socket; else it is closed."""
        self._is_cut = True
        if not self._is_awaited:
            self.close()
        elif self._pid == os.getpid():
            with contextlib.suppress(zmq.ZMQError):  # it has ended already
                self._socket.disconnect(self._endpoint)

    def close(self) -> None:
        """Close. The server ends what was asked and is not answered."""
        self._socket.close(linger=0)

    def _events(self) -> int:
        if self._is_cut:
            raise ServerGoneError("this client is closed")
        if self._pid != os.getpid():  # libzmq's thread has stayed behind: it would wait for ever
            raise ServerGoneError("a connection of before a fork is the parent's alone")
        return int(self._socket.getsockopt(zmq.EVENTS))
