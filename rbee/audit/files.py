"""The files of an audit log: their names and their ends. Read only.

A file is named after its first entry: ``audit-000000000001.jsonl``. The newest is written; a
new one is begun instead of renaming it, so that no moment of a rotation can lose or double one.
"""

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from rbee.audit.chain import LINE_BYTES_MAX, Head, Line, hash_of, read_line

LOCK_NAME: Final = "lock"
_NAME: Final = re.compile(r"audit-([0-9]{12,18})\.jsonl")

# What is read of the end of the newest file when a log is taken up.
TAIL_BYTES: Final = 256 * 1024

READ_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def file_name(first_seq: int) -> str:
    return f"audit-{first_seq:012d}.jsonl"


def first_seq_of(path: Path) -> int:
    """The entry that a file is named after."""
    match = _NAME.fullmatch(path.name)
    assert match is not None, path
    return int(match[1])


def log_files(folder: Path) -> list[Path]:
    """All files of the log, the oldest first.

    Raises:
      OSError: the folder cannot be read.
    """
    found = [entry for entry in folder.iterdir() if _NAME.fullmatch(entry.name)]
    return sorted(found, key=first_seq_of)


@dataclass(frozen=True, slots=True)
class Tail:
    """How a log ends, as far as its last lines tell."""

    file: Path | None = None  # the last that is not empty
    size: int = 0  # of that file
    heads: Mapping[int, str] = field(
        default_factory=dict
    )  # of the last entries, if right: hash by seq
    last: Head | None = None  # the last entry; None: there is none, or it is not right
    last_line: Line | None = None  # the same, whole
    torn: bytes = b""  # what stands behind the last newline
    problem: str = ""  # why there is no `last`, though there are lines
    empty: tuple[Path, ...] = ()  # files behind it to which nothing was written


def read_tail(folder: Path) -> Tail:
    """Look at the end of a log. A file with less than a line leads on to the one before it.

    Raises:
      OSError: it cannot be read.
    """
    empty: list[Path] = []
    found = Tail()
    for path in reversed(log_files(folder)):
        data, size, is_whole = _read_end(path)
        if not size:
            empty.append(path)
            continue
        lines = data.split(b"\n")
        torn = lines.pop()
        if found.file is None:
            found = Tail(path, size, torn=torn, empty=tuple(empty))
        elif torn:
            return replace(found, problem=f"{path.name} ends in a torn line")
        if not is_whole and len(lines) < 2:
            return replace(found, problem=f"{path.name} ends in no line at all")
        if lines:
            return _judge(found, path.name, lines if is_whole else lines[1:])
    return found if found.file else Tail(empty=tuple(empty))


def _judge(found: Tail, name: str, lines: list[bytes]) -> Tail:
    heads: dict[int, str] = {}
    last: Head | None = None
    last_line: Line | None = None
    for raw in lines:
        line = read_line(raw)
        last, last_line = None, None
        if line is not None and hash_of(line.body) == line.hash:
            last, last_line = Head(line.entry.seq, line.hash), line
            heads[last.seq] = last.hash
    problem = "" if last is not None else f"the last line of {name} is not as it was written"
    return replace(found, heads=heads, last=last, last_line=last_line, problem=problem)


def first_time_s(path: Path) -> float | None:
    """Unix time of the first entry of a file; None: there is none that can be read.

    Raises:
      OSError: it cannot be read.
    """
    descriptor = os.open(path, READ_FLAGS)
    try:
        line = read_line(os.pread(descriptor, LINE_BYTES_MAX, 0).partition(b"\n")[0])
    finally:
        os.close(descriptor)
    if line is None:
        return None
    try:
        return datetime.fromisoformat(line.entry.time).timestamp()
    except ValueError:
        return None


def _read_end(path: Path) -> tuple[bytes, int, bool]:
    """The last bytes of a file, its size, and whether that is all of it."""
    descriptor = os.open(path, READ_FLAGS)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise PermissionError(f"{path} is no regular file")
        start = max(0, found.st_size - TAIL_BYTES)
        return os.pread(descriptor, TAIL_BYTES, start), found.st_size, start == 0
    finally:
        os.close(descriptor)


assert TAIL_BYTES > 2 * LINE_BYTES_MAX, "a tail holds a whole line, however long the lines are"
