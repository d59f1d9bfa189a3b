"""The server's end of one ZeroMQ connection, as bytes: a ROUTER's, without libzmq. Pure.

libzmq's own listener ends the process when a descriptor cannot be had, bounds no number of
clients, and tells nobody when one goes: see docs/decisions/0005-local-face-without-libzmq.md.

Rule 1: whatever bytes arrive give messages, bytes to send, or a `RemoteProtocolError`.
Rule 2: what is kept of a client is bounded: each frame by its place in a message, and the
        last one may be longer, is dropped as it comes, and is told by its length.
Source: ZMTP 3.0 (rfc.zeromq.org/spec/23), mechanism NULL; PING and PONG from 3.1 (spec/37).
"""

from dataclasses import dataclass
from typing import Final

from rbee.errors import RemoteProtocolError

_GREETING_BYTES: Final = 64
_SIGNATURE: Final = b"\xff" + bytes(8) + b"\x7f"
_NULL: Final = b"NULL".ljust(20, b"\0")

GREETING: Final = _SIGNATURE + b"\x03\x00" + _NULL + b"\0" + bytes(31)
READY: Final = b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06ROUTER"

_MORE, _LONG, _COMMAND = 1, 2, 4
_COMMAND_BYTES_MAX: Final = 1024
_PING_CONTEXT: Final = slice(7, 7 + 16)  # behind the name and the time to live
_PEERS: Final = b"DEALER"


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a client."""

    frames: list[bytes]
    dropped_bytes: int = 0  # of the last frame, which was too long; it is empty then


@dataclass(frozen=True, slots=True)
class _Frame:
    flags: int
    content: bytes
    dropped_bytes: int = 0


def write_message(frames: list[bytes]) -> bytes:
    """One message as it goes over the wire."""
    last = len(frames) - 1
    return b"".join(
        _frame_head(_MORE if number < last else 0, len(frame)) + frame
        for number, frame in enumerate(frames)
    )


class ZmtpServer:
    """Reads what one client sends. Told by `receive`, asked by `next_message`.

    Args:
      frame_bytes_max: of each frame of a message, so also how many there are.
    """

    __slots__ = (
        "_dropping_bytes", "_frame_bytes_max", "_frames", "_is_greeted", "_is_ready", "_received",
        "_to_send",
    )  # fmt: skip

    def __init__(self, frame_bytes_max: tuple[int, ...]) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._received = bytearray()
        self._frames: list[bytes] = []
        self._dropping_bytes = 0
        self._is_greeted = False
        self._is_ready = False
        self._to_send = GREETING

    @property
    def is_ready(self) -> bool:
        """Whether both sides have said who they are."""
        return self._is_ready

    @property
    def unread_bytes(self) -> int:
        """Received, and part of no message that was told."""
        return len(self._received)

    @property
    def is_in_message(self) -> bool:
        """Whether a message has begun, and its end is waited for."""
        return bool(self._received or self._frames or self._dropping_bytes)

    def take_to_send(self) -> bytes:
        """What the protocol itself has to say now."""
        told, self._to_send = self._to_send, b""
        return told

    def receive(self, data: bytes) -> None:
        """Take what was read."""
        if self._dropping_bytes:
            dropped = min(self._dropping_bytes, len(data))
            self._dropping_bytes -= dropped
            data = data[dropped:]
        self._received += data

    def forget(self) -> None:
        """Let go of what was received: nobody will ask for it."""
        self._received = bytearray()
        self._frames = []

    def next_message(self) -> Message | None:
        """The next whole message. None: more must be received before.

        Raises:
          RemoteProtocolError: this is no ZeroMQ client of a kind that we take.
        """
        if not self._is_greeted and not self._read_greeting():
            return None
        while (frame := self._next_frame()) is not None:
            if frame.flags & _COMMAND:
                self._obey(frame.content)
                continue
            self._frames.append(frame.content)
            if not frame.flags & _MORE:
                frames, self._frames = self._frames, []
                return Message(frames, frame.dropped_bytes)
        return None

    def _read_greeting(self) -> bool:
        received = self._received
        begun = received[:10]
        if begun[:1] != _SIGNATURE[:1][: len(begun)] or (len(begun) == 10 and begun[9] != 0x7F):
            raise RemoteProtocolError("expected the greeting of a ZeroMQ socket")
        if len(received) > 10 and received[10] < 3:
            raise RemoteProtocolError(f"expected ZMTP 3, got {received[10]}")
        if len(received) < _GREETING_BYTES:
            return False
        if received[12:32] != _NULL or received[32] != 0:
            raise RemoteProtocolError("expected the mechanism NULL")
        del received[:_GREETING_BYTES]
        self._is_greeted = True
        self._to_send += READY
        return True

    def _read_head(self) -> tuple[int, int, int] | None:
        """Flags of the next frame, where its content begins, and how long that is."""
        received = self._received
        if len(received) < 2:
            return None
        flags = received[0]
        if flags > 7 or flags & (_MORE | _COMMAND) == _MORE | _COMMAND:
            raise RemoteProtocolError(f"a frame has the flags {flags:#x}")
        if not flags & _COMMAND and not self._is_ready:
            raise RemoteProtocolError("a message came before READY")
        if not flags & _LONG:
            return flags, 2, received[1]
        if len(received) < 9:
            return None
        return flags, 9, int.from_bytes(received[1:9], "big")

    def _next_frame(self) -> _Frame | None:
        """The next whole frame; or, of one that is dropped, as soon as its length is known."""
        head = self._read_head()
        if head is None:
            return None
        flags, start, size = head
        limit, is_droppable = self._limit(flags)
        if size > limit and is_droppable:
            there = min(size, len(self._received) - start)
            self._dropping_bytes = size - there
            self._take(start, there)
            return _Frame(flags, b"", size)
        if size > limit:
            raise RemoteProtocolError(f"a frame of {size} bytes is over {limit}")
        if len(self._received) < start + size:
            return None
        return _Frame(flags, self._take(start, size))

    def _limit(self, flags: int) -> tuple[int, bool]:
        """Bytes that the next frame may have, and whether one over it is dropped."""
        if flags & _COMMAND:
            return _COMMAND_BYTES_MAX, False
        number, last = len(self._frames), len(self._frame_bytes_max) - 1
        if bool(flags & _MORE) is (number == last):
            raise RemoteProtocolError(f"a message must have {last + 1} frames")
        return self._frame_bytes_max[number], number == last

    def _take(self, start: int, size: int) -> bytes:
        taken = bytes(self._received[start : start + size])
        del self._received[: start + size]
        return taken

    def _obey(self, command: bytes) -> None:
        name, rest = command[1 : 1 + command[0]] if command else b"", command
        if not self._is_ready:
            if name != b"READY" or _socket_type(rest[6:]) != _PEERS:
                raise RemoteProtocolError("expected READY of a DEALER")
            self._is_ready = True
        elif name == b"PING":
            context = rest[_PING_CONTEXT]
            self._to_send += b"\x04%c\x04PONG%b" % (5 + len(context), context)
        elif name != b"PONG":
            raise RemoteProtocolError("a command came that is not for now")


def _frame_head(flags: int, size: int) -> bytes:
    if size < 256:
        return b"%c%c" % (flags, size)
    return b"%c%b" % (flags | _LONG, size.to_bytes(8, "big"))


def _socket_type(properties: bytes) -> bytes:
    """What kind of socket the peer is, of the properties of its READY."""
    while properties:
        name_end = 1 + properties[0]
        size = int.from_bytes(properties[name_end : name_end + 4], "big")
        value_end = name_end + 4 + size
        if len(properties) < value_end:
            break
        if properties[1:name_end].lower() == b"socket-type":
            return properties[name_end + 4 : value_end]
        properties = properties[value_end:]
    raise RemoteProtocolError("expected the properties of READY")
