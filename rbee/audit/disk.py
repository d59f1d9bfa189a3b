"""All that the audit log does to a disk, call by call, so that a test can make any of them fail."""

import os
import stat
from pathlib import Path
from typing import Final, Protocol

_COMMON: Final = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Disk(Protocol):
    """What may fail. Every method may raise `OSError`."""

    def make_folder(self, folder: Path) -> None: ...

    def open(self, path: Path, flags: int) -> int: ...

    def write(self, descriptor: int, data: bytes | memoryview) -> int: ...

    def write_at(self, descriptor: int, data: bytes, offset: int) -> int: ...

    def truncate(self, descriptor: int, size: int) -> None: ...

    def sync(self, descriptor: int) -> None: ...

    def rename(self, source: Path, target: Path) -> None: ...

    def unlink(self, path: Path) -> None: ...


class RealDisk:
    """The operating system's."""

    def make_folder(self, folder: Path) -> None:
        """Make it if need be, and close it to others."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise PermissionError(f"{folder} is no directory of ours")
        if stat.S_IMODE(found.st_mode) & 0o077:
            folder.chmod(0o700)

    def open(self, path: Path, flags: int) -> int:
        """Open a regular file of ours, closed to others; nothing else."""
        descriptor = os.open(path, flags | _COMMON, 0o600)
        try:
            _close_to_others(path, descriptor)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        return os.write(descriptor, data)

    def write_at(self, descriptor: int, data: bytes, offset: int) -> int:
        return os.pwrite(descriptor, data, offset)

    def truncate(self, descriptor: int, size: int) -> None:
        os.ftruncate(descriptor, size)

    def sync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        source.rename(target)

    def unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)


def _close_to_others(path: Path, descriptor: int) -> None:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        raise PermissionError(f"{path} is no regular file with one name")
    if found.st_uid != os.geteuid():
        raise PermissionError(f"{path} belongs to uid {found.st_uid}")
    if stat.S_IMODE(found.st_mode) & 0o077:
        os.fchmod(descriptor, 0o600)


def sync_folder(disk: Disk, folder: Path) -> None:
    """Make what was created, renamed or removed in a folder last."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        disk.sync(descriptor)
    finally:
        os.close(descriptor)
