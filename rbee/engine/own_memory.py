"""How much memory this process holds."""

import os
from typing import Final

_READ_BYTES_MAX: Final = 128
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class OwnMemory:
    """Opened once, and kept: a process that has run out of descriptors can still tell."""

    def __init__(self) -> None:
        self._statm_fd = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)

    def rss_bytes(self) -> int:
        """Resident memory. Source: proc(5), /proc/PID/statm, second field."""
        fields = os.pread(self._statm_fd, _READ_BYTES_MAX, 0).split()
        return int(fields[1]) * _PAGE_BYTES
