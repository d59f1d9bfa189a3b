"""The run directory: where sockets lie while the supervisor runs. Ours, 0700, held by a lock."""

import contextlib
import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final

from rbee.errors import RunDirError
from rbee.transport.link import SOCKET_PATH_BYTES_MAX

LOCK_NAME: Final = "lock"

# The longest name that we give to a socket in it.
SOCKET_NAME_BYTES_MAX: Final = 16


class RunDir:
    """Makes the directory and holds its lock; takes both away at the end.

    Raises:
      RunDirError: it cannot be made, is not ours alone, or another supervisor holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        self._lock_fd = -1

    def __enter__(self) -> "RunDir":
        self._make(self._sweep)
        return self

    def mend(self) -> bool:
        """Make it again, and hold it, if somebody has deleted it or what is in it.

        Returns:
          Whether that was so.

        Raises:
          RunDirError: as for the first time; also when another supervisor has taken its place.
        """
        if self._is_held():
            return False
        self._unlock()
        self._make()  # sockets that are there are those of our workers
        return True

    def _is_held(self) -> bool:
        try:
            found = (self.path / LOCK_NAME).stat()
        except OSError:
            return False
        return self._lock_fd >= 0 and os.path.samestat(os.fstat(self._lock_fd), found)

    def _make(self, clear: Callable[[], None] = lambda: None) -> None:
        path = self.path
        longest = SOCKET_PATH_BYTES_MAX - SOCKET_NAME_BYTES_MAX - 1
        if len(bytes(path)) > longest:
            raise RunDirError(f"run_dir {path} is longer than the {longest} bytes a socket allows")
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = path.lstat()
        except OSError as error:
            raise RunDirError(f"run_dir {path} cannot be made: {error.strerror}") from error
        if not stat.S_ISDIR(found.st_mode):
            raise RunDirError(f"run_dir {path} is not a directory")
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise RunDirError(
                f"run_dir {path} must be owned by uid {os.geteuid()} and closed to others (0700),"
                f" found uid {found.st_uid} and {stat.S_IMODE(found.st_mode):04o}"
            )
        try:
            self._lock()
            clear()
        except OSError as error:  # a full disk, a file system without locks
            self._unlock()
            raise RunDirError(f"run_dir {path} cannot be used: {error.strerror}") from error

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self._is_held():  # else another has made it again, and holds a lock of that name
            with contextlib.suppress(OSError):  # the next holder takes the same file
                (self.path / LOCK_NAME).unlink()
        self._unlock()
        with contextlib.suppress(OSError):  # something of somebody else's lies in it
            self.path.rmdir()

    def _unlock(self) -> None:
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def _lock(self) -> None:
        lock_path = self.path / LOCK_NAME
        while True:
            descriptor = self._locked(lock_path)
            # The holder before us may have taken the file away while we waited for it.
            if lock_path.exists() and os.path.samestat(os.fstat(descriptor), lock_path.stat()):
                break
            os.close(descriptor)
        self._lock_fd = descriptor
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)

    def _locked(self, lock_path: Path) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(lock_path, flags, 0o600)
        except OSError as error:
            raise RunDirError(f"{lock_path} cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise RunDirError(
                f"run_dir {self.path} is held by another rbee supervisor, pid {holder};"
                " give this one a run_dir of its own"
            ) from None
        return descriptor

    def _sweep(self) -> None:
        """Take away the sockets that a killed supervisor left."""
        for entry in self.path.iterdir():
            if stat.S_ISSOCK(entry.lstat().st_mode):
                entry.unlink()
