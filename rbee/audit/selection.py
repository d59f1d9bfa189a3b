"""Which entries somebody wants: by number, by time, by event. Pure."""

import fnmatch
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from rbee.audit.chain import Entry
from rbee.errors import AuditError

_NUMBER: Final = re.compile(r"[0-9]{1,18}", re.ASCII)

Bound = Callable[[Entry], bool]


@dataclass(frozen=True, slots=True)
class Selection:
    """What all of its parts take is wanted."""

    bounds: tuple[Bound, ...]

    def takes(self, entry: Entry) -> bool:
        return all(bound(entry) for bound in self.bounds)


def select(since: str | None, until: str | None, events: Sequence[str]) -> Selection:
    """Read what was asked for.

    Args:
      since: the first entry: its number, or a time in RFC 3339.
      until: the last one, likewise.
      events: names, or patterns such as ``worker.*``; any of them will do.

    Raises:
      AuditError: it is no number and no time.
    """
    bounds: list[Bound] = []
    if since is not None:
        bounds.append(_bound(since, operator.ge))
    if until is not None:
        bounds.append(_bound(until, operator.le))
    if events:
        bounds.append(lambda entry: any(fnmatch.fnmatchcase(entry.event, each) for each in events))
    return Selection(tuple(bounds))


def _bound(text: str, holds: Callable[[Any, Any], bool]) -> Bound:
    if _NUMBER.fullmatch(text):
        number = int(text)
        return lambda entry: holds(entry.seq, number)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise AuditError(f"{text!r} is no number of an entry and no time in RFC 3339") from error
    if moment.tzinfo is None:
        raise AuditError(f"{text!r} has no time zone: end it with Z, or an offset like +02:00")
    limit = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return lambda entry: holds(entry.time, limit)  # one form, UTC: the texts sort as the times do
