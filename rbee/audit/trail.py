"""The trail: appends to the files of an audit log, whole or not at all. Synchronous.

Rule 1: one call of `append` is all or nothing, as far as the disk lets it: what was written of
        a batch that failed is cut off again, or else found as a torn line by the next.
Rule 2: several processes may write one log, each in its turn under the lock. Who finds the log
        other than he left it takes it up anew.
Rule 3: the anchor never promises what is not on the disk: sync first, then anchor, then tell the
        store.
Rule 4: a new key is in the anchor before an entry names it, and that entry comes before any that it
        seals: a log that has entries of a key has an anchor of that key, or of a later one.
"""

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from rbee.audit.anchoring import Anchoring
from rbee.audit.chain import GENESIS, Head, Note, key_id, write_lines
from rbee.audit.disk import Disk, RealDisk
from rbee.audit.events import AuditDamaged, AuditRekeyed, AuditRotated, Details, Outcome
from rbee.audit.files import (
    Tail,
    file_name,
    first_seq_of,
    log_files,
    read_tail,
)
from rbee.audit.lock import TurnLock, is_at
from rbee.audit.log_file import LogFile, begin, go_on_in
from rbee.audit.place import Place
from rbee.audit.seals import holds_behind
from rbee.audit.takeup import take_up
from rbee.config import AuditConfig

# Errors of a file that another file may not have.
_FRESH_FILE_MAY_HELP: Final = frozenset({errno.EIO, errno.EFBIG, errno.EBADF, errno.ESTALE})

ACTOR: Final = "audit"

# Reasons to begin a new file that are no damage.
ORDINARY: Final = frozenset({"size", "age", "disk_low"})

_OTHER_KEY: Final = (
    "the log is sealed with another secret than ours: all that write it must have the same one"
)


class Trail:
    """Owned by one thread.

    Args:
      key: seals each entry; None: nothing is sealed.
      may_take_over: go on behind entries of another key, and say so. A server must, or a
        secret that was lost would end the log.
    """

    def __init__(  # noqa: PLR0913  # what a test puts in its place is among them
        self,
        place: Place,
        config: AuditConfig,
        key: bytes | None,
        *,
        disk: Disk | None = None,
        unix_clock: Callable[[], float] = time.time,
        may_take_over: bool = True,
    ) -> None:
        self.folder: Final = place.folder
        self._config = config
        self._key = key
        self._disk = disk or RealDisk()
        self._anchoring = Anchoring(place, self._disk, config.files_max)
        self._clock = unix_clock
        self._may_take_over = may_take_over
        self._has_written = False
        self._offered: bytes | None = None
        self.has_taken_over = False  # the entries before ours are of another key
        self._lock: Final = TurnLock(place.folder, self._disk)
        self._current: LogFile | None = None
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
        self._append(notes, None)

    def offer(self, key: bytes) -> None:
        """Take this key where the log goes on under it already. From any thread."""
        self._offered = key

    def rekey(self, key: bytes) -> None:
        """Seal with another key from the next entry on, and have an entry say so.

        Raises:
          OSError: the old one seals as before.
        """
        assert self._key is not None
        self._append([], key)

    def _append(self, notes: Sequence[Note], new_key: bytes | None) -> None:
        try:
            with self._locked():
                self._catch_up()
                if new_key is not None:
                    if new_key == self._key:  # another process has done it
                        return
                    notes = [self._rekeying(new_key)]
                if reason := self._rotation_due():
                    self._rotate(reason)
                self._write([*self._first, *notes])
                self._first, self._fresh = [], ""  # the file takes what is written
                self._has_written = True
                if new_key is not None:
                    self._take_key(new_key)
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
            known = self._anchoring.read()
            if known is None or known.seq < self._head.seq:
                self._anchoring.write(self._head, self._key)
            self._anchored = self._head

    def tell_witness(self) -> str:
        """Have the store keep the anchor as well.

        Returns:
          Why it cannot; "": it does, or there is no store or no anchor.
        """
        return self._anchoring.tell_witness()

    def rotate_soon(self, reason: str) -> None:
        self._fresh = self._fresh or reason

    def free_bytes(self) -> tuple[int, int]:
        """What is left on the disk for us, and its size."""
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize

    def close(self) -> None:
        """Let go of the files. What is not synced may be lost."""
        self._anchoring.close()
        self._let_go()

    def _let_go(self) -> None:
        try:
            self._take_file(None)
        finally:
            self._lock.close()

    # --- the lock, and who else writes

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        if self._lock.is_stale():
            self._let_go()  # somebody has taken the folder away
        with self._lock.held():
            yield

    def _catch_up(self) -> None:
        """See to it that the log is as we left it; else take it up anew."""
        if self._is_as_left():
            return
        self.sync()
        if self._head is None and not self._anchoring.exists() and not log_files(self.folder):
            # Before the first entry: then its absence means something.
            self._anchoring.write(GENESIS, self._key)
        tail = read_tail(self.folder)
        plan = take_up(tail, self._known())
        taken_over = self._take_over(tail)
        for path in tail.empty:
            self._disk.unlink(path)
        if plan.is_same_file:
            assert tail.file is not None
            self._take_file(go_on_in(self._disk, tail.file, self._clock()))
            assert self._current is not None
            self._current.size = tail.size - len(tail.torn)
            self._head = plan.head
            others = [note for note in self._first if not isinstance(note.details, AuditRekeyed)]
            if plan.repaired is not None:
                self._repair([*taken_over, self._note(plan.repaired)])
                taken_over = []
            self._first = [*taken_over, *others]
            return
        first = [] if plan.damaged is None else [self._note(plan.damaged, Outcome.FAILURE)]
        self._begin_file(plan.head, [*taken_over, *first])

    def _take_over(self, tail: Tail) -> list[Note]:
        """See whose key seals behind the end of the log.

        Returns:
          What is to be told first.

        Raises:
          OSError: another's, where we must not seal.
        """
        line = tail.last_line
        if line is None:
            is_unknown = bool(tail.problem) and self._key is not None and not self._has_written
            return [self._taking_over()] if is_unknown else []
        if holds_behind(line, self._key):
            return []
        if self._offered is not None and holds_behind(line, self._offered):
            self._take_key(self._offered)
            return []
        if self._has_written or not self._may_take_over:
            raise OSError(errno.EKEYREJECTED, _OTHER_KEY)
        return [self._taking_over()]

    def _taking_over(self) -> Note:
        self._anchoring.seal(self._key)
        self.has_taken_over = True
        named = None if self._key is None else key_id(self._key)
        return self._note(AuditRekeyed(key=named, before=None))

    def _rekeying(self, new_key: bytes) -> Note:
        assert self._key is not None
        self._anchoring.seal(new_key)
        return self._note(AuditRekeyed(key=key_id(new_key), before=key_id(self._key)))

    def _take_key(self, key: bytes) -> None:
        self._key, self._anchored = key, None

    def _is_as_left(self) -> bool:
        if self._current is None or self._head is None:
            return False
        found = os.fstat(self._current.descriptor)
        is_whole = found.st_size == self._current.size and found.st_nlink == 1
        is_there = is_whole and is_at(self._current.descriptor, self._current.path)
        return is_there and self._lock.is_left_at(self._head)

    def _known(self) -> Head | None:
        """The last entry that there must be, by the anchors and by what we wrote ourselves."""
        heads = self._anchoring.heads()
        if self._head is not None:
            heads.append(self._head)
        return max(heads, key=lambda head: head.seq) if heads else None

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
            self._lock.leave_at(head)
        except OSError:
            with contextlib.suppress(OSError):  # else it is found as a torn line
                self._disk.truncate(current.descriptor, current.size)
            raise
        current.size += written
        self._head = head

    def _repair(self, notes: Sequence[Note]) -> None:
        """Write entries over the torn line, so that no moment is without either of them."""
        assert self._head is not None
        assert self._current is not None
        lines, head = write_lines(self._head, notes, self._key)
        data = b"".join(lines)
        path, size = self._current.path, self._current.size
        descriptor = self._disk.open(path, os.O_WRONLY)  # the other only appends
        try:
            self._is_synced = False
            if self._disk.write_at(descriptor, data, size) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._disk.truncate(descriptor, size + len(data))
        finally:
            os.close(descriptor)
        self._current.size += len(data)
        self._head = head
        self._lock.leave_at(head)

    def _take_file(self, file: LogFile | None) -> None:
        """Go on in that file, or in none.

        Raises:
          OSError: closing the one before went wrong; it is closed, and this one taken.
        """
        before, self._current = self._current, file
        if before is not None:
            before.close()

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
        self._begin_file(self._head, [*self._first, first])

    def _begin_file(self, head: Head, first: list[Note]) -> None:
        """Go on behind ``head`` in a new file, with those notes before all others."""
        files = log_files(self.folder)
        after_all = first_seq_of(files[-1]) + 1 if files else 0  # whatever somebody put there
        path = self.folder / file_name(max(head.seq + 1, after_all))
        self._take_file(begin(self._disk, path, self._clock()))
        self._head, self._first, self._fresh, self._is_synced = head, first, "", True

    def _note(self, details: Details, outcome: Outcome = Outcome.SUCCESS) -> Note:
        return Note(details, ACTOR, outcome, None, int(self._clock() * 1e9))
