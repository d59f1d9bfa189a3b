"""A server that says what it is told to, byte by byte if need be, and to every connection alike."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
ACCEPT_TIMEOUT_S = 10.0

Piece = bytes | float
"""What is sent, or how many seconds nothing is."""


def event(content: str | None = None, finish: str | None = None) -> bytes:
    delta = {} if content is None else {"content": content}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


def chunk(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def answer(*contents: str) -> bytes:
    """A whole answer with an event for each content, and a chunk for each event."""
    events = [event(""), *map(event, contents), event(finish="length"), b"data: [DONE]\n\n"]
    return HEAD + b"".join(map(chunk, events)) + LAST_CHUNK


@contextlib.contextmanager
def scripted_server(*pieces: Piece, connections: int = 1) -> Iterator[int]:
    """Answer one request on each connection with these pieces, and close it.

    Yields:
      The port.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        listener.settimeout(ACCEPT_TIMEOUT_S)
        serving = threading.Thread(target=_serve, args=(listener, pieces, connections))
        serving.start()
        try:
            yield listener.getsockname()[1]
        finally:
            serving.join()


def _serve(listener: socket.socket, pieces: Sequence[Piece], connections: int) -> None:
    for _ in range(connections):
        connection, _ = listener.accept()
        with connection, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.settimeout(ACCEPT_TIMEOUT_S)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.recv(65536)
            for piece in pieces:
                if isinstance(piece, float):
                    time.sleep(piece)
                else:
                    connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(65536)  # until the client has closed, so that it is told no reset
