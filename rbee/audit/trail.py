"""The trail: appends to the files of an audit log, whole or not at all. Synchronous.

Rule 1: one call of `append` is all or nothing, as far as the disk lets it: what was written of
        a batch that failed is cut off again, or else found as a torn line by the next.
Rule 2: several processes may write one log, each in its turn under the lock. Who finds the log
        other than he left it takes it up anew.
Rule 3: the anchor never promises what is not on the disk: sync first, then anchor, then tell the
        store.
"""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rbee.audit.anchor import (
    GENESIS_ANCHOR,
    Anchor,
    AnchorError,
    read_anchor,
    sealed,
    write_anchor,
)
from rbee.audit.chain import GENESIS, Head, Note, write_lines
from rbee.audit.disk import Disk, RealDisk, sync_folder
from rbee.audit.events import AuditDamaged, AuditRotated, Details, Outcome
from rbee.audit.files import (
    LOCK_NAME,
    file_name,
    first_seq_of,
    first_time_s,
    log_files,
    read_tail,
)
from rbee.audit.place import Place
from rbee.audit.takeup import take_up
from rbee.audit.witness import Witness
from rbee.config import AuditConfig

# Whoever holds the lock for so long is stopped or stuck; ours are done in milliseconds.
LOCK_TIMEOUT_S: Final = 2.0
_LOCK_EVERY_S: Final = 0.002

_HINT_BYTES: Final = 128

# Errors of a file that another file may not have.
_FRESH_FILE_MAY_HELP: Final = frozenset({errno.EIO, errno.EFBIG, errno.EBADF, errno.ESTALE})

ACTOR: Final = "audit"

# Reasons to begin a new file that are no damage.
ORDINARY: Final = frozenset({"size", "age", "disk_low"})


@dataclass(slots=True)
class _Current:
    """The file that is written."""

    path: Path
    descriptor: int
    size: int
    begun_s: float  # Unix time


class Trail:
    """Owned by one thread.

    Args:
      key: seals each entry; None: nothing is sealed.
    """

    def __init__(
        self,
        place: Place,
        config: AuditConfig,
        key: bytes | None,
        *,
        disk: Disk | None = None,
        unix_clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder: Final = place.folder
        self._anchor_path: Final = place.anchor
        self._config = config
        self._key = key
        self._disk = disk or RealDisk()
        self._witness = Witness(place.store)
        self._clock = unix_clock
        self._lock_fd = -1
        self._current: _Current | None = None
        self._head: Head | None = None  # None: not taken up yet
        self._fresh = ""  # why the next entry goes into a new file
        self._first: list[Note] = []  # go before all others
        self._is_synced = True
        self._anchored: Head | None = None

    @property
    def head(self) -> Head:
        return self._head or GENESIS

    @property
    def is_synced(self) -> bool:
        """Whether all that was appended is on the disk."""
        return self._is_synced

    @property
    def is_anchored(self) -> bool:
        return self._anchored == self._head

    def append(self, notes: Sequence[Note]) -> None:
        """Write entries for the notes, in order, each with the next number.

        Raises:
          OSError: none of them counts as written.
        """
        try:
            with self._locked():
                self._catch_up()
                if reason := self._rotation_due():
                    self._rotate(reason)
                self._write([*self._first, *notes])
                self._first, self._fresh = [], ""  # the file takes what is written
        except OSError as error:
            if error.errno in _FRESH_FILE_MAY_HELP and self._head is not None:
                self._fresh = f"the file before cannot be written: {error.strerror}"
            raise

    def sync(self) -> None:
        """Have all that was appended on the disk.

        Raises:
          OSError: nobody knows what is there; what comes next goes into a new file.
        """
        if self._is_synced or self._current is None:
            return
        try:
            self._disk.sync(self._current.descriptor)
        except OSError as error:
            self._fresh = f"the file before could not be synced: {error.strerror}"
            raise
        self._is_synced = True

    def anchor(self) -> None:
        """Note where the chain ends now, and take away what is too old. Call after `sync`.

        Raises:
          OSError: the old anchor holds.
        """
        if not self._is_synced or self.is_anchored or self._head is None:
            return
        with self._locked():
            known = self._read_anchor()
            if known is None or known.seq < self._head.seq:
                self._write_anchor(self._head)
            self._anchored = self._head

    def tell_witness(self) -> str:
        """Have the store keep the anchor as well.

        Returns:
          Why it cannot; "": it does, or there is no store or no anchor.
        """
        try:
            anchor = read_anchor(self._anchor_path)
        except AnchorError as error:
            return str(error)
        if anchor is not None:
            self._witness.tell(anchor)
        return self._witness.problem

    def rotate_soon(self, reason: str) -> None:
        self._fresh = self._fresh or reason

    def free_bytes(self) -> tuple[int, int]:
        """What is left on the disk for us, and its size."""
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize

    def close(self) -> None:
        """Let go of the files. What is not synced may be lost."""
        self._witness.close()
        self._let_go()

    def _let_go(self) -> None:
        if self._current is not None:
            os.close(self._current.descriptor)
            self._current = None
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    # --- the lock, and who else writes

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        if self._lock_fd >= 0 and not _is_at(self._lock_fd, self.folder / LOCK_NAME):
            self._let_go()  # somebody has taken the folder away
        if self._lock_fd < 0:
            self._disk.make_folder(self.folder)
            self._lock_fd = self._disk.open(self.folder / LOCK_NAME, os.O_RDWR | os.O_CREAT)
        until_s = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > until_s:
                    message = f"another process has locked it for {LOCK_TIMEOUT_S} s"
                    raise OSError(errno.EAGAIN, message) from error
                time.sleep(_LOCK_EVERY_S)
        try:
            yield
        finally:
            fcntl.flock(self._lock_fd, fcntl.LOCK_UN)

    def _catch_up(self) -> None:
        """See to it that the log is as we left it; else take it up anew."""
        if self._is_as_left():
            return
        self.sync()
        if self._head is None and not self._anchor_path.exists() and not log_files(self.folder):
            self._write_anchor(GENESIS)  # before the first entry: then its absence means something
        tail = read_tail(self.folder)
        plan = take_up(tail, self._known())
        for path in tail.empty:
            self._disk.unlink(path)
        if plan.is_same_file:
            assert tail.file is not None
            self._open(tail.file)
            assert self._current is not None
            self._current.size = tail.size - len(tail.torn)
            self._head = plan.head
            if plan.repaired is not None:
                self._repair(self._note(plan.repaired))
            return
        first = [] if plan.damaged is None else [self._note(plan.damaged, Outcome.FAILURE)]
        self._begin_file(plan.head, first)

    def _is_as_left(self) -> bool:
        if self._current is None or self._head is None:
            return False
        found = os.fstat(self._current.descriptor)
        is_whole = found.st_size == self._current.size and found.st_nlink == 1
        is_there = is_whole and _is_at(self._current.descriptor, self._current.path)
        return is_there and self._read_hint() == self._hint(self._head)

    def _known(self) -> Head | None:
        """The last entry that there must be, by the anchors and by what we wrote ourselves."""
        anchors = (self._read_anchor(), self._witness.anchor())
        heads = [anchor.head for anchor in anchors if anchor is not None]
        if self._head is not None:
            heads.append(self._head)
        return max(heads, key=lambda head: head.seq) if heads else None

    def _read_anchor(self) -> Anchor | None:
        try:
            return read_anchor(self._anchor_path)
        except AnchorError:
            return None  # as if it were gone: that is told as damage

    def _write_anchor(self, head: Head) -> None:
        """And take away the oldest files, once the anchor says so.

        The first entry that there must be moves on by this alone: who else takes files away is
        found out.
        """
        known, files = self._read_anchor(), log_files(self.folder)
        if known is None:  # at the very begin, or after damage that was told
            known = GENESIS_ANCHOR if not files else Anchor(0, "", first_seq_of(files[0]))
        first_seq = known.first_seq
        if old := files[: -self._config.files_max]:
            first_seq = max(first_seq, first_seq_of(files[len(old)]))
        anchor = Anchor(head.seq, head.hash, first_seq)
        write_anchor(self._disk, self._anchor_path, sealed(anchor, self._key))
        for path in old:
            self._disk.unlink(path)

    def _read_hint(self) -> bytes:
        return os.pread(self._lock_fd, _HINT_BYTES, 0)

    def _hint(self, head: Head) -> bytes:
        """What the lock file tells the others: who finds something else has missed something."""
        return f"{head.seq:020d} {head.hash}\n".encode()

    # --- writing, under the lock

    def _write(self, notes: Sequence[Note]) -> None:
        assert self._head is not None
        assert self._current is not None
        lines, head = write_lines(self._head, notes, self._key)
        current, data = self._current, memoryview(b"".join(lines))
        self._is_synced = False
        written = 0
        try:
            while written < len(data):
                written += self._disk.write(current.descriptor, data[written:])
            self._disk.write_at(self._lock_fd, self._hint(head), 0)
        except OSError:
            with contextlib.suppress(OSError):  # else it is found as a torn line
                self._disk.truncate(current.descriptor, current.size)
            raise
        current.size += written
        self._head = head

    def _repair(self, note: Note) -> None:
        """Write an entry over the torn line, so that no moment is without either of them."""
        assert self._head is not None
        assert self._current is not None
        [line], head = write_lines(self._head, [note], self._key)
        path, size = self._current.path, self._current.size
        descriptor = self._disk.open(path, os.O_WRONLY)  # the other only appends
        try:
            self._is_synced = False
            if self._disk.write_at(descriptor, line, size) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._disk.truncate(descriptor, size + len(line))
        finally:
            os.close(descriptor)
        self._current.size += len(line)
        self._head = head
        self._disk.write_at(self._lock_fd, self._hint(head), 0)

    def _open(self, path: Path) -> None:
        """Go on in a file that is there, or begin one."""
        flags = os.O_WRONLY | os.O_APPEND | (0 if path.exists() else os.O_CREAT | os.O_EXCL)
        descriptor = self._disk.open(path, flags)
        if self._current is not None:
            os.close(self._current.descriptor)
        found = os.fstat(descriptor)
        self._current = _Current(
            path, descriptor, found.st_size, first_time_s(path) or self._clock()
        )

    def _rotation_due(self) -> str:
        assert self._current is not None
        if not self._current.size:
            return ""
        if self._fresh:
            return self._fresh
        if self._current.size >= self._config.file_bytes_max:
            return "size"
        # Either way: a file that was begun while the clock was ahead would stay for ever.
        is_old = abs(self._clock() - self._current.begun_s) >= self._config.file_age_s
        return "age" if is_old else ""

    def _rotate(self, reason: str) -> None:
        assert self._head is not None
        assert self._current is not None
        self._is_synced = False  # others may have written here as well
        if reason in ORDINARY:
            self.sync()
            before = self._current.path.name
            first = self._note(AuditRotated(before=before, reason=reason))
        else:
            with contextlib.suppress(OSError):  # it is in trouble, and that is being told
                self.sync()
            seq = self._head.seq
            damaged = AuditDamaged(reason=reason, found_seq=seq, expected_seq=seq)
            first = self._note(damaged, Outcome.FAILURE)
        self._begin_file(self._head, [first])

    def _begin_file(self, head: Head, first: list[Note]) -> None:
        """Go on behind ``head`` in a new file, with those notes before all others."""
        files = log_files(self.folder)
        after_all = first_seq_of(files[-1]) + 1 if files else 0  # whatever somebody put there
        self._open(self.folder / file_name(max(head.seq + 1, after_all)))
        sync_folder(self._disk, self.folder)
        self._head, self._first, self._fresh, self._is_synced = head, first, "", True

    def _note(self, details: Details, outcome: Outcome = Outcome.SUCCESS) -> Note:
        return Note(details, ACTOR, outcome, None, int(self._clock() * 1e9))


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether that path still leads to the file that is open."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
