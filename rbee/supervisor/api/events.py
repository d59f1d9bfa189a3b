"""Server-sent events as bytes: one ``data:`` line of JSON each, and never two.

Rule: no text breaks a line. JSON escapes CR and LF; the line separators of Unicode, which
      some clients split at, are escaped here.
"""

from typing import Final

import msgspec

from rbee.errors import RequestError
from rbee.supervisor.api.problems import problem_object

DONE: Final = b"data: [DONE]\n\n"

# A comment: readers of events skip it, what counts the seconds between bytes does not.
KEEP_ALIVE: Final = b": keep-alive\n\n"

_encode: Final = msgspec.json.Encoder().encode


def one_line(value: object) -> bytes:
    """JSON that no reader of lines can take for two lines."""
    encoded = _encode(value)
    if not encoded.isascii():  # these bytes are found in strings alone
        encoded = encoded.replace(b"\xe2\x80\xa8", b"\\u2028")
        encoded = encoded.replace(b"\xe2\x80\xa9", b"\\u2029")
        encoded = encoded.replace(b"\xc2\x85", b"\\u0085")
    return encoded


def event(value: object) -> bytes:
    """One event."""
    return b"data: " + one_line(value) + b"\n\n"


def failure_events(error: RequestError, correlation_id: str) -> bytes:
    """How a stream ends that had begun and cannot go on."""
    return event(problem_object(error, correlation_id)) + DONE
