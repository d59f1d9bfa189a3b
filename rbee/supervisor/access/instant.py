"""Times as RFC 3339 has them. Pure."""

import math
import re
from datetime import UTC, datetime
from typing import Final

RFC_3339: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})",
    re.ASCII,
)

# The last second of the year 9999, from which on RFC 3339 has no words.
UNIX_S_MAX: Final = 253_402_300_799

_SECOND: Final = slice(17, 19)
_DAY_S: Final = 86_400


def read_rfc_3339(text: str) -> float | None:
    """The Unix time that a text names; None: it names none, or has no offset.

    A leap second is the first second of the next day, as Unix time has none of its own.
    """
    if not RFC_3339.fullmatch(text):
        return None
    # Python takes up to six digits of a second here, RFC 3339 any number.
    short = re.sub(r"(\.[0-9]{6})[0-9]+", r"\1", text.upper())
    is_leap = short[_SECOND] == "60"
    if is_leap:
        short = short[: _SECOND.start] + "59" + short[_SECOND.stop :]
    try:
        unix_s = datetime.fromisoformat(short).timestamp()
    except (ValueError, OverflowError):  # such as 31 February
        return None
    if not is_leap:
        return unix_s
    ends_a_day = (math.floor(unix_s) + 1) % _DAY_S == 0
    return unix_s + 1 if ends_a_day and unix_s < UNIX_S_MAX else None


def rfc_3339(unix_s: int) -> str:
    """A time in UTC, to the second."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat().replace("+00:00", "Z")
