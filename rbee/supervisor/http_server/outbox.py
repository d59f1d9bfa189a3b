"""What a client is sent: in order, at once, and never waiting for a client that does not read.

Rule 1: bytes go straight to the kernel. What it does not take is parked, and a task that
        lives only as long as something is parked sends it on.
Rule 2: a client that takes nothing for `send_deadline_s` is given up. Nothing here is shielded
        from cancellation: a stalled client holds nobody.
Rule 3: once broken, an outbox takes everything and sends nothing. The connection is closed.
"""

import socket
from collections.abc import Callable
from typing import Literal

import trio

from rbee.logs import Log

BrokenReason = Literal["slow_client", "disconnected"]


class Outbox:
    """The sending side of one connection.

    Args:
      start_flush: called when something is parked; must see to it that `flush` is run.
      on_broken: called once, when the client is given up.
    """

    def __init__(
        self,
        sock: socket.socket,
        send_deadline_s: float,
        start_flush: Callable[[], None],
        on_broken: Callable[[BrokenReason], None],
    ) -> None:
        self._socket = sock
        self._send_deadline_s = send_deadline_s
        self._start_flush = start_flush
        self._on_broken = on_broken
        self._held = b""
        self._parked = bytearray()
        self._emptied = trio.lowlevel.ParkingLot()
        self.broken: BrokenReason | None = None

    @property
    def parked_bytes(self) -> int:
        return len(self._parked)

    @property
    def has_held(self) -> bool:
        """Whether an answer's head is ready but has not left."""
        return bool(self._held)

    def hold(self, head: bytes) -> None:
        """Keep an answer's head, to leave in one packet with the first of its body."""
        self._held += head

    def forget_held(self) -> None:
        self._held = b""

    def push(self, data: bytes) -> None:
        """Send now what the kernel takes, and park the rest."""
        if self._held:
            data, self._held = self._held + data, b""
        if self.broken is not None or not data:
            return
        if self._parked:
            self._parked += data
            return
        sent = self._send_nowait(data)
        if sent < len(data) and self.broken is None:
            self._parked += memoryview(data)[sent:]
            self._start_flush()

    async def wait_flushed(self) -> None:
        """Wait until the kernel has everything, or the client was given up."""
        while self._parked:
            await self._emptied.park()

    async def flush(self) -> None:
        """Send on what is parked, as the client takes it."""
        while self._parked:
            with trio.move_on_after(self._send_deadline_s) as patience:
                await trio.lowlevel.wait_writable(self._socket)
            if patience.cancelled_caught:
                self.give_up("slow_client")
                return
            del self._parked[: self._send_nowait(self._parked)]
        self._emptied.unpark_all()

    def give_up(self, reason: BrokenReason) -> None:
        """Send no more. Only the first reason counts."""
        if self.broken is not None:
            return
        self.broken = reason
        self._held = b""
        self._parked = bytearray()
        self._emptied.unpark_all()
        self._on_broken(reason)

    def _send_nowait(self, data: bytes | bytearray) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self.give_up("disconnected")
            return 0


def as_chunk(payload: bytes) -> bytes:
    """A part of a body as HTTP/1.1 has it."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


class DirectWriter:
    """Writes parts of one streamed answer, at once and from any task, without ASGI's `send`.

    An app finds it in ``scope["extensions"]["rbee.direct"]``, where the client speaks HTTP/1.1.
    It may be used from the answer's start until its last body message.

    Args:
      frame: makes of a part what the client is sent.
    """

    def __init__(
        self,
        outbox: Outbox,
        parked_bytes_max: int,
        log: Log,
        frame: Callable[[bytes], bytes] = as_chunk,
    ) -> None:
        self._frame = frame
        self._outbox = outbox
        self._parked_bytes_max = parked_bytes_max
        self._log = log
        self._is_open = False
        self._broken: BrokenReason | None = None
        self._on_broken: Callable[[BrokenReason], object] | None = None

    @property
    def broken(self) -> BrokenReason | None:
        """Why nothing reaches the client any more; None while all is well."""
        return self._broken

    @property
    def parked_bytes(self) -> int:
        """How much was written that the kernel has not taken yet."""
        return self._outbox.parked_bytes

    @property
    def on_broken(self) -> Callable[[BrokenReason], object] | None:
        """Called once with the reason, synchronously, when the writer breaks.

        Set on a writer that is broken already, it is called at once.
        """
        return self._on_broken

    @on_broken.setter
    def on_broken(self, callback: Callable[[BrokenReason], object] | None) -> None:
        self._on_broken = callback
        if callback is not None and self._broken is not None:
            callback(self._broken)

    def write_nowait(self, payload: bytes) -> None:
        """Send ``payload`` as one part of the body. Never waits; what is broken drops it."""
        if self._broken is not None or not payload:
            return
        if not self._is_open:
            # The writer may be called from a task that serves others too: it must not raise.
            self._log.error("direct_write_out_of_turn", written_bytes=len(payload))
            return
        self._outbox.push(self._frame(payload))
        if self._outbox.parked_bytes > self._parked_bytes_max:
            self._outbox.give_up("slow_client")

    async def drain(self) -> None:
        """Wait until the kernel has everything, or the client was given up."""
        await self._outbox.wait_flushed()

    def open(self) -> None:
        """The connection says: the answer has started, and is sent in chunks."""
        self._is_open = True

    def close(self) -> None:
        """The connection says: the answer is complete."""
        self._is_open = False

    def break_off(self, reason: BrokenReason) -> None:
        """The connection says: the client is gone. Only the first reason counts."""
        if self._broken is None:
            self._broken = reason
            if self._on_broken is not None:
                self._on_broken(reason)
