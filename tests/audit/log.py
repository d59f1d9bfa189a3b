"""Audit logs for tests: notes, trails, and lines as they stand in the files."""

import itertools
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rbee.audit.chain import Note
from rbee.audit.disk import Disk
from rbee.audit.events import LimitExceeded, Outcome
from rbee.audit.files import log_files
from rbee.audit.place import Place, place_in
from rbee.audit.reading import verify
from rbee.audit.trail import Trail
from rbee.audit.verify import Verdict
from rbee.config import AuditConfig

KEY = bytes(range(32))
NOW_NS = time.time_ns()
SMALL = AuditConfig(file_bytes_max=4096, files_max=3)


def note(number: int, text: str = "requests") -> Note:
    details = LimitExceeded(limit=text, subject="key-1", allowed=1, found=number)
    return Note(details, "tester", Outcome.DENIED, f"id-{number}", NOW_NS)


def notes(*numbers: int) -> list[Note]:
    return [note(number) for number in numbers]


def trail_in(
    state_dir: Path,
    config: AuditConfig | None = None,
    key: bytes | None = None,
    disk: Disk | None = None,
) -> Trail:
    return Trail(place_in(state_dir), config or AuditConfig(), key, disk=disk)


def write_log(
    state_dir: Path, entries: int, config: AuditConfig | None = None, key: bytes | None = None
) -> Place:
    """A log that was closed in order."""
    trail = trail_in(state_dir, config, key)
    for number in range(1, entries + 1):
        trail.append([note(number)])
    trail.sync()
    trail.anchor()
    assert not trail.tell_witness()
    trail.close()
    return place_in(state_dir)


def entries(place: Place, *, is_torn: bool = False) -> list[dict[str, Any]]:
    """All entries; but the last line where it is torn."""
    lines = raw_lines(place)[:-1] if is_torn else raw_lines(place)
    return [json.loads(line) for line in lines if line.startswith(b"{")]


def raw_lines(place: Place) -> list[bytes]:
    files = (path.read_bytes().splitlines(keepends=True) for path in log_files(place.folder))
    return list(itertools.chain.from_iterable(files))


def numbers(place: Place) -> list[int]:
    """Of our own notes, in the order of the log."""
    found = (entry["details"] for entry in entries(place) if entry["event"] == "limit.exceeded")
    return [details["found"] for details in found]


def events(place: Place) -> list[str]:
    return [entry["event"] for entry in entries(place)]


def good(place: Place, keys: Iterable[bytes] = ()) -> Verdict:
    """Hold a log to be as it was written."""
    verdict = verify(place, list(keys))
    assert verdict.flaw is None, verdict.flaw
    return verdict


class Clock:
    """Unix time, as a test wants it."""

    def __init__(self) -> None:
        self.now_s = time.time()

    def __call__(self) -> float:
        return self.now_s
