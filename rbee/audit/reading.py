"""Reads an audit log that may be written meanwhile: one moment of it, held by open files."""

import contextlib
import fcntl
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from io import BufferedReader
from pathlib import Path
from typing import Final

from rbee.audit.anchor import Anchor, AnchorError, read_anchor
from rbee.audit.chain import Head
from rbee.audit.files import LOCK_NAME, READ_FLAGS, log_files
from rbee.audit.place import Place
from rbee.audit.verify import READ_LINE_BYTES, Verdict, Verifier
from rbee.audit.witness import Witness
from rbee.errors import AuditError

LOCK_TIMEOUT_S: Final = 5.0
_LOCK_EVERY_S: Final = 0.005


@dataclass(frozen=True, slots=True)
class _Part:
    """One file, as long as it was at that moment."""

    name: str
    file: BufferedReader
    size: int


@dataclass(frozen=True, slots=True)
class Mark:
    """The end of a log at one moment."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A log at one moment."""

    parts: Sequence[_Part]
    anchor: Anchor | None
    anchor_problem: str  # why there is an anchor, but not to be read
    witness: Anchor | None  # the anchor that the store keeps
    witness_problem: str  # why the store cannot be asked

    def lines(self, part: _Part) -> Iterator[bytes]:
        """The lines of a file, with their newlines; one too long comes in pieces."""
        left, file = part.size, part.file
        while left > 0 and (line := file.readline(min(left, READ_LINE_BYTES))):
            left -= len(line)
            yield line

    @property
    def end(self) -> Mark:
        return Mark(self.parts[-1].name, self.parts[-1].size) if self.parts else Mark("", 0)

    def all_lines(self) -> Iterator[bytes]:
        for part in self.parts:
            yield from self.lines(part)


def last_lines(log: Snapshot, count: int) -> list[bytes]:
    """The last lines of a log, as many as there are of those asked for."""
    found: list[bytes] = []
    for part in reversed(log.parts):
        if len(found) >= count:
            break
        found = [*deque(log.lines(part), maxlen=count - len(found)), *found]
    return found


def lines_since(log: Snapshot, mark: Mark) -> list[bytes]:
    """What was written after that moment."""
    found: list[bytes] = []
    for part in log.parts:
        if part.name >= mark.name:
            start = mark.size if part.name == mark.name else 0
            part.file.seek(start)
            found += log.lines(replace(part, size=part.size - start))
    return found


@contextlib.contextmanager
def open_log(place: Place) -> Iterator[Snapshot]:
    """Hold a log as it is now.

    Raises:
      AuditError: there is none, or it cannot be read.
    """
    folder, anchor, problem = place.folder, None, ""
    witness = Witness(place.store)
    with contextlib.ExitStack() as stack, contextlib.closing(witness):
        try:
            with _shared_lock(folder):
                try:
                    anchor = read_anchor(place.anchor)
                except AnchorError as error:
                    problem = str(error)
                witnessed = witness.anchor()
                parts = [_open_part(path, stack) for path in log_files(folder)]
        except FileNotFoundError as error:
            raise AuditError(f"{folder}: there is no audit log") from error
        except OSError as error:
            raise AuditError(f"{folder} cannot be read: {error.strerror or error}") from error
        if not parts and anchor is None and not problem:
            raise AuditError(f"{folder}: there is no audit log")
        yield Snapshot(parts, anchor, problem, witnessed, witness.problem)


def verify(
    place: Place,
    keys: Sequence[bytes] = (),
    pins: Sequence[Head] = (),
    accepted: Sequence[int] = (),
) -> Verdict:
    """Whether a log is as it was written. The arguments are those of `Verifier`.

    Raises:
      AuditError: there is none, or it cannot be read.
    """
    with open_log(place) as log:
        anchors = log.anchor, log.witness
        verifier = Verifier(anchors, keys, pins, log.anchor_problem, accepted)
        try:
            for part in log.parts:
                verifier.begin_file(part.name)
                for line in log.lines(part):
                    if not verifier.take(line):
                        break
                if verifier.is_flawed:
                    break
        except OSError as error:
            raise AuditError(f"{place.folder} cannot be read: {error.strerror}") from error
        return replace(verifier.finish(), witness_problem=log.witness_problem)


def _open_part(path: Path, stack: contextlib.ExitStack) -> _Part:
    file = stack.enter_context(os.fdopen(os.open(path, READ_FLAGS), "rb"))
    return _Part(path.name, file, os.fstat(file.fileno()).st_size)


@contextlib.contextmanager
def _shared_lock(folder: Path) -> Iterator[None]:
    """Keep writers out for a moment. A copy, or a folder that we may only read, has no lock."""
    try:
        descriptor = os.open(folder / LOCK_NAME, READ_FLAGS)
    except OSError:
        yield
        return
    try:
        until_s = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > until_s:
                    message = f"{folder} is locked by another process for {LOCK_TIMEOUT_S} s"
                    raise AuditError(message) from error
                time.sleep(_LOCK_EVERY_S)
        yield
    finally:
        os.close(descriptor)
