"""Which secret seals where: it changes only where an entry says so. Pure.

Rule 1: an ``audit.rekeyed`` names the key that seals behind it. It is sealed with the key before:
        who has replaced the secret knew both.
Rule 2: a server that starts under another secret does not know the one before. It seals its
        ``audit.rekeyed`` with the new one; that is good for a newer secret alone. So whoever
        knows an old one cannot take the log back to it.
Rule 3: the end of a log, and its anchor, are of the newest secret.
"""

import hmac
from collections.abc import Sequence
from typing import Final

import msgspec

from rbee.audit.anchor import Anchor
from rbee.audit.chain import Line, key_id, seal_of
from rbee.audit.events import AuditRekeyed, Event

_OTHER: Final = -1  # a key that was not given


def named_key(line: Line) -> AuditRekeyed | None:
    """What an entry says of the key behind it; None: nothing, so it is the key of the entry."""
    if line.entry.event != Event.AUDIT_REKEYED:
        return None
    try:
        return msgspec.json.decode(line.entry.details, type=AuditRekeyed)
    except msgspec.MsgspecError:
        return AuditRekeyed(key="", before=None)  # none is called so


def is_sealed_by(line: Line, key: bytes) -> bool:
    return line.seal is not None and hmac.compare_digest(seal_of(line.hash, key), line.seal)


def holds_behind(line: Line, key: bytes | None) -> bool:
    """Whether the next entry is for that key to seal; None: for none."""
    named = named_key(line)
    if named is not None:
        return named.key == (None if key is None else key_id(key))
    return line.seal is None if key is None else is_sealed_by(line, key)


class Seals:
    """Goes along a log, and knows which key must have sealed the next entry.

    Args:
      keys: that may have sealed it, the newest first; none: seals are not looked at.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = keys
        self._ids = [key_id(key) for key in keys]
        self._holding: int | None = None  # the place of the key; None: nothing was sealed yet
        self._named = ""  # by an entry, where it was not given
        self.checked = 0

    def problem(self, line: Line) -> str:
        """What is wrong with the seal of the next entry; "": nothing."""
        if not self._keys:
            return ""
        if line.seal is None:
            return "" if self._holding is None else "it has no seal, and those before it have"
        if self._holding == _OTHER:
            return f"its seal is of key {self._named}, whose secret was not given"
        named, found = named_key(line), self._sealed_by(line)
        if problem := self._misfit(found, named):
            return problem
        self.checked += 1
        self._holding = found
        if named is not None:
            self._named = named.key or "none"
            self._holding = self._ids.index(named.key) if named.key in self._ids else _OTHER
        return ""

    def problem_at_end(self) -> str:
        """What is wrong with the secret under which a log ends; "": nothing."""
        if self._holding == _OTHER:
            return f"the log goes on under key {self._named}, whose secret was not given"
        if self._holding:
            return f"the log ends under key {self._ids[self._holding]}, not under that of the first"
        return ""

    def is_seal_of(self, anchor: Anchor) -> bool:
        """Whether an anchor is sealed as the end of the log must be."""
        if self._holding is None:
            return True
        return self._holding != _OTHER and anchor.is_sealed_by(self._keys[self._holding])

    def _sealed_by(self, line: Line) -> int:
        """The place of the key that made a seal; nearly always the one that holds."""
        if self._holding is not None and is_sealed_by(line, self._keys[self._holding]):
            return self._holding
        fits = (place for place, key in enumerate(self._keys) if is_sealed_by(line, key))
        return next(fits, _OTHER)

    def _misfit(self, found: int, named: AuditRekeyed | None) -> str:
        if found == _OTHER:
            return "its seal is not of this secret"
        if self._holding is None or found == self._holding:
            return ""
        told = f"it is sealed with key {self._ids[found]}"
        if named is None or named.key != self._ids[found]:
            return f"{told}, which no entry before it names"
        return f"{told}, an older one than that before it" if found > self._holding else ""
