"""The locks of an audit log: whose turn it is to write, and which server records for commands."""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rbee.audit.chain import Head
from rbee.audit.disk import Disk, RealDisk
from rbee.audit.files import LOCK_NAME

# Whoever holds the lock for so long is stopped or stuck; ours are done in milliseconds.
LOCK_TIMEOUT_S: Final = 2.0
_LOCK_EVERY_S: Final = 0.002

# A command that records holds the other lock for some 50 ms.
OFFICE_TIMEOUT_S: Final = 0.5

_HINT_BYTES: Final = 128


class TurnLock:
    """Held by the process whose turn it is. Its file tells where the chain was left."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._folder = folder
        self._disk = disk
        self._descriptor = -1

    def is_stale(self) -> bool:
        """Whether somebody has taken the folder away since it was opened."""
        return self._descriptor >= 0 and not is_at(self._descriptor, self._folder / LOCK_NAME)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Raises: OSError: it cannot be opened, or others hold it for too long."""
        if self._descriptor < 0:
            self._disk.make_folder(self._folder)
            self._descriptor = self._disk.open(self._folder / LOCK_NAME, os.O_RDWR | os.O_CREAT)
        until_s = time.monotonic() + LOCK_TIMEOUT_S
        while not _take(self._descriptor):
            if time.monotonic() > until_s:
                message = f"another process has locked it for {LOCK_TIMEOUT_S} s"
                raise OSError(errno.EAGAIN, message)
            time.sleep(_LOCK_EVERY_S)
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def is_left_at(self, head: Head) -> bool:
        """Whether nobody has written behind that entry."""
        return os.pread(self._descriptor, _HINT_BYTES, 0) == _hint(head)

    def leave_at(self, head: Head) -> None:
        """Tell the others: who finds something else has missed something."""
        self._disk.write_at(self._descriptor, _hint(head), 0)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Office:
    """Held, all its life, by the server that records what commands do; else by a command itself.

    Of several servers with one log the first has it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor = -1

    def take(self, timeout_s: float = 0.0) -> bool:
        """Whether we have it now.

        Raises:
          OSError: the folder cannot be made, or is not ours.
        """
        RealDisk().make_folder(self._folder)
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        until_s = time.monotonic() + timeout_s
        while not _take(descriptor):
            if time.monotonic() >= until_s:
                os.close(descriptor)
                return False
            time.sleep(_LOCK_EVERY_S)
        self._descriptor = descriptor
        return True

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def is_at(descriptor: int, path: Path) -> bool:
    """Whether that path still leads to the file that is open."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _take(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _hint(head: Head) -> bytes:
    return f"{head.seq:020d} {head.hash}\n".encode()
