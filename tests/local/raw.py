"""A local client made by hand, of a socket and of bytes: it can do what libzmq never would."""

import socket
from pathlib import Path

from rbee.local_wire import FromServer, Request, decode_answer, encode_request
from rbee.supervisor.local.zmtp import GREETING, write_message

READY = b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
SERVERS_READY = b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06ROUTER"
HELLO = GREETING + READY


def request(request: Request, body: bytes = b"") -> bytes:
    """A request as it goes over the wire."""
    return write_message(encode_request(request, body))


def connect(path: Path, timeout_s: float = 10.0) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(timeout_s)
    sock.connect(str(path))
    return sock


class RawClient:
    """A connection that has shaken hands."""

    def __init__(self, path: Path) -> None:
        self.sock = connect(path)
        self.sock.sendall(HELLO)
        self._received = b""
        assert self._read(len(GREETING)) == GREETING
        assert self._read(len(SERVERS_READY)) == SERVERS_READY

    def ask(self, asked: Request, body: bytes = b"") -> None:
        self.sock.sendall(request(asked, body))

    def hear(self) -> FromServer:
        """The next message. Raises: EOFError, ConnectionResetError: the server has closed."""
        frames = []
        has_more = True
        while has_more:
            flags = self._read(1)[0]
            size = int.from_bytes(self._read(8 if flags & 2 else 1), "big")
            frames.append(self._read(size))
            has_more = bool(flags & 1)
        return decode_answer(frames)

    def is_closed(self) -> bool:
        """Wait for the server's end of it. False: it said something instead."""
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.sock.close()

    def _read(self, size: int) -> bytes:
        while len(self._received) < size:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError
            self._received += data
        read, self._received = self._received[:size], self._received[size:]
        return read
