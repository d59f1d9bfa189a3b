"""What processes take: CPU time, memory and descriptors, from /proc. Source: proc(5)."""

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from processes import Running

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_BUSY_FIELDS: Final = (0, 1, 2, 5, 6)  # of /proc/stat: user nice system irq softirq


@dataclass(frozen=True, slots=True)
class Usage:
    """What a server has taken so far, and what the whole machine has."""

    front_s: float  # CPU, all but the workers
    workers_s: float
    machine_s: float  # all processes, and the kernel on behalf of none
    wall_s: float
    front_bytes: int  # resident now
    workers_bytes: int


def read_usage(server: Running) -> Usage:
    return Usage(
        front_s=cpu_s(server.front_pids),
        workers_s=cpu_s(server.worker_pids),
        machine_s=_machine_cpu_s(),
        wall_s=time.monotonic(),
        front_bytes=rss_bytes(server.front_pids),
        workers_bytes=rss_bytes(server.worker_pids),
    )


def cpu_s(pids: Sequence[int]) -> float:
    """User and system time of all threads that these processes have now.

    From /proc/PID/task/TID/schedstat, in nanoseconds: the ticks of /proc/PID/stat, 10 ms, are too
    coarse for a light load.
    """
    total_ns = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
                total_ns += int((task / "schedstat").read_text("ascii").split()[0])
    return total_ns / 1e9


def rss_bytes(pids: Sequence[int]) -> int:
    pages = (int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) for pid in pids)
    return sum(pages) * _PAGE_BYTES


def descriptors(pids: Sequence[int]) -> int:
    return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)


def _machine_cpu_s() -> float:
    first = Path("/proc/stat").read_text("ascii").split("\n", 1)[0].split()[1:]
    return sum(int(first[index]) for index in _BUSY_FIELDS) / _TICKS_PER_S
