"""The load client: many SSE streams on one epoll, in one process, without a framework.

Rule 1: while a load runs it only receives, notes the time and keeps the bytes; reading them
        is `transcript`'s work afterwards. So it takes little of the cores it shares.
Rule 2: it gives up what has not ended in time; nothing here waits for ever.
"""

import contextlib
import gc
import json
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from transcript import Raw

SETTLE_S: Final = 0.5  # from the last stream's begin to the window, and after the window

_RECEIVE_BYTES: Final = 65536
_LAST_CHUNK: Final = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Load:
    """A steady load: all streams are begun in ``ramp_s`` and run through the window."""

    streams: int
    tokens_per_s: float  # of each stream: the pace that the workers keep
    ramp_s: float
    measure_s: float

    @property
    def tokens(self) -> int:
        """Of each stream."""
        return round(self._stream_s * self.tokens_per_s)

    @property
    def give_up_s(self) -> float:
        """When streams that are still open are given up: thrice their time."""
        return 3 * self._stream_s + 5

    @property
    def _stream_s(self) -> float:
        return self.ramp_s + self.measure_s + 2 * SETTLE_S


class Receiver:
    """The open streams of one load."""

    def __init__(self, host: str, port: int) -> None:
        self.raws: list[Raw] = []  # all that were begun
        self._address = (host, port)
        self._epoll = select.epoll()
        self._open: dict[int, tuple[socket.socket, Raw, bytes]] = {}

    @property
    def open_streams(self) -> int:
        return len(self._open)

    def begin(self, request: bytes) -> None:
        """Connect; the request goes out as soon as the connection is made."""
        raw = Raw(begun_s=time.monotonic())
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.connect_ex(self._address)
        self.raws.append(raw)
        self._open[sock.fileno()] = (sock, raw, request)
        self._epoll.register(sock.fileno(), select.EPOLLOUT)

    def take(self, timeout_s: float) -> None:
        """Receive what is there; wait up to ``timeout_s`` for the first of it."""
        streams, clock = self._open, time.monotonic
        for descriptor, events in self._epoll.poll(timeout_s):
            sock, raw, request = streams[descriptor]
            if events & select.EPOLLOUT:
                self._ask(descriptor, sock, request)
                continue
            try:
                data = sock.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                self._end(descriptor, type(error).__name__)
                continue
            raw.times_s.append(clock())
            raw.received += data
            raw.ends.append(len(raw.received))
            if data.endswith(_LAST_CHUNK):
                self._end(descriptor, "complete")
            elif not data:
                self._end(descriptor, "cut")

    def close(self) -> None:
        """Close what is still open: it was given up."""
        for sock, _, _ in self._open.values():
            sock.close()
        self._epoll.close()

    def _ask(self, descriptor: int, sock: socket.socket, request: bytes) -> None:
        try:
            sent = sock.send(request)
        except OSError as error:
            self._end(descriptor, type(error).__name__)
            return
        assert sent == len(request), "a fresh socket takes a small request whole"
        self._epoll.modify(descriptor, select.EPOLLIN)

    def _end(self, descriptor: int, how: str) -> None:
        sock, raw, _ = self._open.pop(descriptor)
        raw.ended = how
        self._epoll.unregister(descriptor)
        sock.close()


def run_load(
    host: str, port: int, load: Load, request: bytes, at_window: Callable[[bool], None]
) -> list[Raw]:
    """Run a steady load to its end, or until it is given up.

    Args:
      at_window: called when the window begins, with True, and when it ends, with False.
    """
    with _receiving(host, port) as receiver:
        begun_s = time.monotonic()
        window_s = begun_s + load.ramp_s + SETTLE_S
        marks = [(window_s, True), (window_s + load.measure_s, False)]
        while len(receiver.raws) < load.streams or receiver.open_streams or marks:
            now_s = time.monotonic()
            if now_s > begun_s + load.give_up_s:
                break
            due = int((now_s - begun_s) / load.ramp_s * load.streams) + 1
            while len(receiver.raws) < min(due, load.streams):
                receiver.begin(request)
            while marks and now_s >= marks[0][0]:
                at_window(marks.pop(0)[1])
            receiver.take(0.002 if due < load.streams else 0.05)
    return receiver.raws


def run_burst(host: str, port: int, requests: Sequence[bytes], timeout_s: float) -> list[Raw]:
    """Begin all requests at once, and run them to their ends."""
    with _receiving(host, port) as receiver:
        give_up_s = time.monotonic() + timeout_s
        for request in requests:
            receiver.begin(request)
        while receiver.open_streams and time.monotonic() < give_up_s:
            receiver.take(0.05)
    return receiver.raws


@contextlib.contextmanager
def _receiving(host: str, port: int) -> Iterator[Receiver]:
    receiver = Receiver(host, port)
    gc.collect()
    gc.disable()  # a collection over 1000 streams would be a pause of ours, not the server's
    try:
        yield receiver
    finally:
        gc.enable()
        receiver.close()


def post(host: str, port: int, path: str, body: dict[str, Any]) -> bytes:
    """A whole request of HTTP/1.1."""
    encoded = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {host}:{port}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(encoded)}\r\n\r\n"
    )
    return head.encode() + encoded


def count_request(host: str, port: int, tokens_max: int, *, stream: bool) -> bytes:
    """Ask a worker without a model to count."""
    messages = [{"role": "user", "content": "count"}]
    body = {
        "model": "synthetic", "messages": messages, "max_tokens": tokens_max, "stream": stream,
    }  # fmt: skip
    return post(host, port, "/v1/chat/completions", body)
