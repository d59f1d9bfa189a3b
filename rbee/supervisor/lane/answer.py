"""The head of an answer, written as the HTTP server writes it.

Rule 1: pure; the date, and the clock it is read from, are arguments.
Rule 2: whoever answers names what the answer is about. How it is framed, when it was given and
        whether the connection ends with it are added here, and only here.
"""

import http
from collections.abc import Callable
from email.utils import formatdate
from typing import Final

from rbee.errors import LocalProtocolError

Headers = list[tuple[bytes, bytes]]  # names in lower case

CHUNKED: Final = b"transfer-encoding: chunked\r\n"
CLOSE: Final = (b"connection", b"close")

_STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode())
    for status in http.HTTPStatus
}
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding", b"date"})


class DateCache:
    """The value of the Date header, written anew only when another second has come.

    Args:
      clock: gives the seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._second = -1
        self._value = b""

    def __call__(self) -> bytes:
        second = int(self._clock())
        if second != self._second:
            self._second = second
            self._value = formatdate(second, usegmt=True).encode("ascii")
        return self._value


def write_head(status: int, headers: Headers, framing: bytes, date: bytes, is_last: bool) -> bytes:
    """Write the head of an answer.

    Args:
      headers: may hold `CLOSE`; nothing of what is added here.
      framing: the line that says where the body ends; empty where there cannot be a body.
      is_last: the connection ends with this answer.
    Raises:
      LocalProtocolError: a header would be read as more than one line.
    """
    assert _FRAMING.isdisjoint([name for name, _ in headers]), "framing and date are added here"
    lines = b"".join([b"%b: %b\r\n" % header for header in headers])
    if lines.count(b"\n") != len(headers) or lines.count(b"\r") != len(headers) or b"\0" in lines:
        names = b", ".join([name for name, _ in headers])
        raise LocalProtocolError(f"a header of an answer must be one line; among {names!r}")
    close = b"connection: close\r\n" if is_last and CLOSE not in headers else b""
    status_line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
    return b"%b%b%bdate: %b\r\n%b\r\n" % (status_line, lines, framing, date, close)


def has_body(method: str, status: int) -> bool:
    """Whether an answer may have a body. If not, there is none even if the app gives one."""
    return method != "HEAD" and status not in (204, 304)
