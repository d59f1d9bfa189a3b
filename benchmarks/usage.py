"""What processes take: CPU time and memory, from /proc. Source: proc(5)."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_BUSY_FIELDS: Final = (0, 1, 2, 5, 6)  # of /proc/stat: user nice system irq softirq


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """CPU seconds so far."""

    supervisor_s: float
    workers_s: float
    client_s: float
    machine_s: float  # all processes, and the kernel on behalf of none
    wall_s: float

    def since(self, before: "CpuTimes") -> "CpuTimes":
        return CpuTimes(
            self.supervisor_s - before.supervisor_s,
            self.workers_s - before.workers_s,
            self.client_s - before.client_s,
            self.machine_s - before.machine_s,
            self.wall_s - before.wall_s,
        )

    @property
    def others_s(self) -> float:
        """What the machine did beside the run: the noise of a round."""
        return self.machine_s - self.supervisor_s - self.workers_s - self.client_s


def cpu_s(*pids: int) -> float:
    """User and system time of all threads of these processes, in steps of 10 ms."""
    ticks = 0
    for pid in pids:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
        fields = stat.rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS_PER_S


def machine_cpu_s() -> float:
    first = Path("/proc/stat").read_text("ascii").split("\n", 1)[0].split()[1:]
    return sum(int(first[index]) for index in _BUSY_FIELDS) / _TICKS_PER_S


def rss_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
