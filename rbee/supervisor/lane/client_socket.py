"""The socket of one client: what it says, what it is sent, and how it is left.

Rule 1: nothing here waits or raises. Whoever sends looks at `is_broken` afterwards.
Rule 2: bytes go straight to the kernel. What it does not take is parked.
Rule 3: only what the kernel takes counts as progress. A client that talks but does not read
        gets no more time by it.
"""

import socket
import struct
from typing import Final

import trio

_READ_BYTES: Final = 64 * 1024

_ABORT: Final = struct.pack("ii", 1, 0)  # SO_LINGER: closing throws away what was not sent


class ClientSocket:
    """A client's socket.

    Args:
      sock: connected, not blocking.
      send_deadline_s: how long something may be parked without any progress.
    """

    __slots__ = ("_parked", "_send_deadline_s", "_sock", "due_s", "is_broken", "parked_bytes")

    def __init__(self, sock: socket.socket, send_deadline_s: float) -> None:
        self._sock = sock
        self._send_deadline_s = send_deadline_s
        self._parked: bytearray | None = None  # None: nothing was, and mostly nothing ever is
        self.parked_bytes = 0
        self.due_s = 0.0  # until when there must be progress, while something is parked
        self.is_broken = False  # the client is gone; nothing is parked

    def receive(self) -> bytes | None:
        """What the client says now. None: nothing. Empty: it has hung up."""
        try:
            return self._sock.recv(_READ_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def send(self, data: bytes) -> None:
        """Send behind what is parked."""
        if self.parked_bytes:
            self._park(data)
            return
        sent = self._send_nowait(data)
        if sent < len(data) and not self.is_broken:
            self._park(memoryview(data)[sent:])
            self.due_s = trio.current_time() + self._send_deadline_s

    def send_on(self) -> None:
        """The kernel may take more of what is parked."""
        assert self._parked is not None
        sent = self._send_nowait(self._parked)
        if sent:
            del self._parked[:sent]
            self.parked_bytes -= sent
            self.due_s = trio.current_time() + self._send_deadline_s

    def end(self) -> None:
        """Say that nothing more comes."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._break()

    def abort(self) -> None:
        """Close so that the client sees that something is missing."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        self.close()

    def close(self) -> None:
        self._drop_parked()
        self._sock.close()

    def _send_nowait(self, data: bytes | bytearray) -> int:
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self._break()
            return 0

    def _break(self) -> None:
        self.is_broken = True
        self._drop_parked()

    def _park(self, data: bytes | memoryview) -> None:
        if self._parked is None:
            self._parked = bytearray()
        self._parked += data
        self.parked_bytes = len(self._parked)

    def _drop_parked(self) -> None:
        self._parked = None
        self.parked_bytes = 0
