"""By when a request must be answered: what the client asks for, within what is allowed.

Pure: the time is an argument.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from rbee.errors import ErrorCode, RequestError, Violation
from rbee.supervisor.access.instant import RFC_3339, read_rfc_3339
from rbee.supervisor.api.fields import Schema

TIMEOUT_HEADER: Final = "X-Request-Timeout"
DEADLINE_HEADER: Final = "X-Request-Deadline"

# However many digits: a header is bounded, and a float reads them all.
_SECONDS: Final = re.compile(r"[0-9]+(\.[0-9]+)?", re.ASCII)

TIMEOUT_SCHEMA: Final[Schema] = {
    "type": "string",
    "pattern": rf"^{_SECONDS.pattern}$",
    "description": "A number of seconds above 0.",
}
DEADLINE_SCHEMA: Final[Schema] = {
    "type": "string",
    "format": "date-time",
    "pattern": rf"^{RFC_3339.pattern}$",
}


def read_remaining(
    timeouts: Sequence[str],
    deadlines: Sequence[str],
    *,
    default_s: float,
    highest_s: float,
    now_unix_s: float,
) -> float:
    """How long a request may take, from now.

    Args:
      timeouts: the values of `TIMEOUT_HEADER`.
      deadlines: the values of `DEADLINE_HEADER`. The earlier of both holds.

    Returns:
      Seconds, at most ``highest_s``; 0 if the deadline has passed.

    Raises:
      RequestError: a header is given twice or is malformed; names all.
    """
    wrong: list[Violation] = []
    asked: list[float] = []
    for field, values, read in (
        (TIMEOUT_HEADER, timeouts, _read_timeout),
        (DEADLINE_HEADER, deadlines, lambda text: _read_deadline(text, now_unix_s)),
    ):
        if len(values) > 1:
            wrong.append(Violation(field, "is given more than once"))
        for text in values[:1]:
            seconds = read(text)
            if seconds is None:
                wrong.append(Violation(field, f"must be {_EXPECTED[field]}"))
            else:
                asked.append(seconds)
    if wrong:
        message = f"{wrong[0].field} {wrong[0].problem}"
        raise RequestError(
            ErrorCode.INVALID_REQUEST, message, param=wrong[0].field, details=tuple(wrong)
        )
    return max(0.0, min(min(asked, default=default_s), highest_s))


def deadline_exceeded(message: str = "the deadline of this request has passed") -> RequestError:
    return RequestError(ErrorCode.DEADLINE_EXCEEDED, message)


def rfc_3339(unix_s: float) -> str:
    """A time in UTC, to the millisecond."""
    time = datetime.fromtimestamp(unix_s, UTC)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


_EXPECTED: Final = {
    TIMEOUT_HEADER: "a number of seconds above 0",
    DEADLINE_HEADER: "a time as RFC 3339 has it, with its offset",
}


def _read_timeout(text: str) -> float | None:
    seconds = float(text) if _SECONDS.fullmatch(text) else 0.0
    return seconds if seconds > 0 else None


def _read_deadline(text: str, now_unix_s: float) -> float | None:
    deadline_unix_s = read_rfc_3339(text)
    return None if deadline_unix_s is None else deadline_unix_s - now_unix_s
