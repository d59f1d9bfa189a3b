"""The worker's end of a link: one connected DEALER socket, owned by one plain thread."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import zmq

from rbee.wire import BODY_BYTES_MAX

# Steps that wait for a slow supervisor. When they are used up the step loop stands still:
# that is the back-pressure.
SEND_MESSAGES_MAX: Final = 8
RECEIVE_MESSAGES_MAX: Final = 4096

# The last word must get out although the process ends right after it.
CLOSE_LINGER_MS: Final = 500


class ThreadLink:
    """Moves frames. All methods are for the one thread that owns it."""

    def __init__(self, path: Path) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, CLOSE_LINGER_MS)
        self._socket.setsockopt(zmq.SNDHWM, SEND_MESSAGES_MAX)
        self._socket.setsockopt(zmq.RCVHWM, RECEIVE_MESSAGES_MAX)
        self._socket.setsockopt(zmq.MAXMSGSIZE, BODY_BYTES_MAX)
        self._socket.setsockopt(zmq.IMMEDIATE, 1)
        self._socket.connect(f"ipc://{path}")
        self._poller = zmq.Poller()

    def watch(self, descriptors: Sequence[int]) -> None:
        """Have `wait` return for these descriptors too."""
        for descriptor in descriptors:
            self._poller.register(descriptor, zmq.POLLIN)

    def wait(self, timeout_s: float, *, wants_to_send: bool) -> set[int]:
        """Wait for a message, for a watched descriptor, or for room to send.

        Returns:
          The watched descriptors that are readable or at their end.
        """
        self._poller.register(self._socket, zmq.POLLIN | (zmq.POLLOUT if wants_to_send else 0))
        ready = self._poller.poll(max(0, int(timeout_s * 1000)))
        return {which for which, _ in ready if isinstance(which, int)}

    def receive_nowait(self) -> list[bytes] | None:
        """The next message, or None when there is none."""
        try:
            return self._socket.recv_multipart(zmq.DONTWAIT)
        except zmq.Again:
            return None

    def send_nowait(self, frames: list[bytes]) -> bool:
        """Queue one message. False: no room; wait and try again."""
        try:
            self._socket.send_multipart(frames, zmq.DONTWAIT)
        except zmq.Again:
            return False
        return True

    def close(self) -> None:
        """Close when what was sent is out, or after `CLOSE_LINGER_MS`."""
        self._socket.close()
        self._context.term()
