"""One ZeroMQ connection to the server. Nothing here waits.

Rule: whoever waits for `fileno` has asked `receive` before, and found nothing: any call on the
      socket may have eaten the news.
"""

import os
from pathlib import Path
from typing import Final

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


class Link:
    """A DEALER socket that is connecting, connected, or gone."""

    def __init__(self, context: Context, path: Path) -> None:
        check_place(path)
        try:
            self._socket = context.socket(zmq.DEALER)
        except zmq.ZMQError as error:
            raise ServerGoneError(f"no connection can be made: {error.strerror}") from error
        self._pid = os.getpid()
        for option, value in _OPTIONS:
            self._socket.setsockopt(option, value)
        self._socket.connect(f"ipc://{path}")
        self._fd = int(self._socket.getsockopt(zmq.FD))

    @property
    def is_connected(self) -> bool:
        """Whether a server is there. Also False while one is being connected to."""
        return bool(self._events() & zmq.POLLOUT)

    def fileno(self) -> int:
        return self._fd

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

    def close(self) -> None:
        """Close. The server ends what was asked and is not answered."""
        self._socket.close(linger=0)

    def _events(self) -> int:
        if self._socket.closed:  # with the client that it is of
            raise ServerGoneError("this client is closed")
        if self._pid != os.getpid():  # libzmq's thread has stayed behind: it would wait for ever
            raise ServerGoneError("a connection of before a fork is the parent's alone")
        return int(self._socket.getsockopt(zmq.EVENTS))
