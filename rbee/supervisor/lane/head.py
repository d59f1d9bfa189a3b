"""The head of a request, read by llhttp. Only this file knows httptools.

Rule 1: pure. The bytes of a whole head come in, a head goes out, or None: this is not for the lane.
Rule 2: a head has passed the guard (`http_server.guard`) before, and llhttp is strict. What one of
        the two does not take, or takes in another way, the lane does not take.
Rule 3: in doubt None. It costs a request some time, and nothing else: hypercorn reads it again.
"""

from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

import httptools

_LINE_END: Final = b" HTTP/1.1\r\n"

# With one of these, more than the head decides how a request is to be read.
_UNUSUAL: Final = frozenset({b"expect", b"transfer-encoding", b"upgrade"})


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a request."""

    method: str
    target: bytes  # as it was sent
    path: str  # decoded, without the query
    headers: list[tuple[bytes, bytes]]  # names in lower case, in the order in which they were sent


@dataclass(frozen=True, slots=True)
class Framing:
    """Where a request ends, and whether its connection ends with it."""

    body_bytes: int
    is_last: bool  # the client said "Connection: close"


class _Collector:
    """What llhttp finds in one head."""

    __slots__ = ("headers", "heads", "target")

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.heads = 0

    def on_url(self, part: bytes) -> None:
        self.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.heads += 1


def read_head(received: bytes) -> Head | None:
    """Read one head.

    Args:
      received: from the request line to the empty line, and nothing behind it.
    """
    found = _Collector()
    parser = httptools.HttpRequestParser(found)
    try:
        parser.feed_data(received)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return None
    method, target = parser.get_method(), found.target
    # What llhttp has read must be what stands there, and all of it: one head, with one space
    # between the parts of its first line.
    if found.heads != 1 or not received.startswith(b"%b %b%b" % (method, target, _LINE_END)):
        return None
    return Head(method.decode("ascii"), target, decode_path(target), found.headers)


def decode_path(target: bytes) -> str:
    """The path of a target, as hypercorn tells it to an app."""
    path = target.partition(b"?")[0].decode("ascii")
    return unquote(path) if "%" in path else path


def find_framing(head: Head, body_bytes_max: int) -> Framing | None:
    """Find out where the request ends. None: that is not for the lane to decide."""
    fields = dict(head.headers)
    if not fields.keys().isdisjoint(_UNUSUAL) or not _has_one_host(head.headers, fields):
        return None
    length = fields.get(b"content-length", b"0")
    if not length.isdigit() or int(length) > body_bytes_max:
        return None
    return Framing(int(length), b"connection" in fields and _says_close(head.headers))


def _has_one_host(headers: list[tuple[bytes, bytes]], fields: dict[bytes, bytes]) -> bool:
    if len(fields) == len(headers):  # each name stands once
        return b"host" in fields
    return [name for name, _ in headers].count(b"host") == 1


def _says_close(headers: list[tuple[bytes, bytes]]) -> bool:
    options = b",".join([value for name, value in headers if name == b"connection"]).lower()
    return b"close" in options and b"close" in [part.strip() for part in options.split(b",")]
