"""The store of keys and the audit log of a state directory, held against each other.

Rule: what the store has the log knows. The log may know of a deed that was refused after all.
"""

import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rbee.audit.chain import Note
from rbee.audit.events import ConfigRejected, Outcome
from rbee.audit.place import place_in
from rbee.audit.reading import open_log, verify
from rbee.audit.trail import Trail
from rbee.config import AuditConfig
from rbee.errors import AuditError, StoreError
from rbee.store import FILE_NAME, KeyRow, open_store

# Of what the log tells of itself: a call that failed, and not that somebody was at its files.
OF_A_FAILURE = ("the file before cannot be written", "the file before could not be synced")


@dataclass(frozen=True)
class Books:
    """What both have, at one moment."""

    rows: dict[str, KeyRow]
    entries: list[dict[str, Any]]

    def told(self, event: str, key: str) -> int:
        """How many entries there are of that event and key."""
        found = [each for each in self.entries if each["event"] == event]
        return sum(each["details"].get("key") == key for each in found)

    def is_good(self, key: str, now_s: float) -> bool:
        """Whether a key opens anything, then."""
        row = self.rows.get(key)
        if row is None or row.revoked_s is not None:
            return False
        return row.expires_s is None or row.expires_s > now_s


def read_books(state_dir: Path) -> Books:
    """Open both as whoever comes next does.

    Raises:
      StoreError, AuditError: one of them cannot be read.
    """
    rows: list[KeyRow] = []
    store = open_store(state_dir / FILE_NAME, create=False)
    if store is not None:
        with store:
            rows = store.keys.all()
    entries: list[dict[str, Any]] = []
    if any(place_in(state_dir).folder.glob("*.jsonl")):
        with open_log(place_in(state_dir)) as log:
            entries = [json.loads(line) for line in log.all_lines() if line.endswith(b"\n")]
    return Books({row.id: row for row in rows}, entries)


def write_on(state_dir: Path, seal: bytes) -> None:
    """Record something more, as a command does that comes next."""
    details = ConfigRejected(problem="none: a trial goes on")
    note = Note(details, "tester", Outcome.SUCCESS, None, time.time_ns())
    with contextlib.closing(Trail(place_in(state_dir), AuditConfig(), seal)) as trail:
        trail.append([note])
        trail.sync()
        trail.anchor()


def flaws(
    state_dir: Path, seals: Sequence[bytes], before: Books, *, may_be_torn: bool = False
) -> list[str]:
    """What is wrong with both, but for what the log tells of a call that failed.

    Args:
      seals: the keys that have sealed the log, the newest first.
      before: what both had when all was well; the log may have let go of that since.
      may_be_torn: nobody has written behind the failure yet.
    """
    try:
        books = read_books(state_dir)
        damaged = [each for each in books.entries if each["event"] == "audit.damaged"]
        found = [
            f"the log takes a failure for damage: {each['details']}"
            for each in damaged
            if not each["details"]["reason"].startswith(OF_A_FAILURE)
        ]
        found += [
            f"key {key} is in no entry"
            for key in books.rows
            if key not in before.rows and not _is_known(books, key)
        ]
        if books.entries:
            accepted = [each["seq"] for each in damaged]
            flaw = verify(place_in(state_dir), seals, accepted=accepted).flaw
            if flaw is not None and not (may_be_torn and flaw.kind == "torn"):
                found.append(f"the audit log: {flaw}")
    except (StoreError, AuditError) as error:
        return [str(error)]
    return found


def _is_known(books: Books, key: str) -> bool:
    """A key that opens nothing any more may have been taken back because it is in no entry."""
    return books.rows[key].revoked_s is not None or books.told("key.created", key) == 1
