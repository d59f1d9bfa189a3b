"""The one file of an audit log that is written: taken over as it is, or begun."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rbee.audit.disk import Disk, sync_folder
from rbee.audit.files import first_time_s

_APPEND: Final = os.O_WRONLY | os.O_APPEND


@dataclass(slots=True)
class LogFile:
    """Open for whoever has it; `close` it."""

    path: Path
    descriptor: int
    size: int
    begun_s: float  # Unix time

    def close(self) -> None:
        os.close(self.descriptor)


def go_on_in(disk: Disk, path: Path, now_s: float) -> LogFile:
    """Open a file that is there.

    Raises:
      OSError: nothing is open.
    """
    descriptor = disk.open(path, _APPEND)
    try:
        size = os.fstat(descriptor).st_size
        return LogFile(path, descriptor, size, first_time_s(path) or now_s)
    except OSError:
        os.close(descriptor)
        raise


def begin(disk: Disk, path: Path, now_s: float) -> LogFile:
    """Make a file that lasts, of the name of none that is there.

    Raises:
      OSError: nothing is open, and as far as the disk lets us there is no such file.
    """
    descriptor = disk.open(path, _APPEND | os.O_CREAT | os.O_EXCL)
    try:
        sync_folder(disk, path.parent)
    except OSError:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            disk.unlink(path)
        raise
    return LogFile(path, descriptor, 0, now_s)
