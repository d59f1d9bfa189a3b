"""One worker's group: its folders in the hierarchies, found by the files that lie in them.

Rule 1: it can be taken up again by its folders' paths alone: so a later supervisor can end
        what an earlier one left.
Rule 2: what is counted is read from the kernel's own counters, never guessed from a signal.
Rule 3: a process is only signalled by a pidfd that was opened while it stood in the group.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from rbee.supervisor.cgroup.files import folders_from, pids_in, read, write

CPU_PERIOD_US: Final = 100_000  # the kernel's own default

# How long the version 1 freezer may take; a process in a system call holds it up.
FREEZE_TIMEOUT_S: Final = 0.1


class Group:
    """The folders of one worker. Without any it holds nobody and does nothing."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.paths: tuple[Path, ...] = tuple(paths)

    def make(self) -> None:
        """Raises: OSError, with none of the folders made."""
        made: list[Path] = []
        try:
            for path in self.paths:
                path.mkdir()
                made.append(path)
        except OSError:
            for path in reversed(made):
                path.rmdir()
            raise

    def limit(
        self, memory_bytes_max: int | None, cpus: float | None, tasks_max: int | None
    ) -> None:
        """Set what is not None.

        Raises:
          OSError: the hierarchies do not have it, or do not let us.
        """
        if memory_bytes_max is not None:
            self._limit_memory(memory_bytes_max)
        if cpus is not None:
            quota = max(1000, int(cpus * CPU_PERIOD_US))  # 1 ms is the least that is taken
            if (modern := self._file("cpu.max")) is not None:
                write(modern, f"{quota} {CPU_PERIOD_US}")
            else:
                write(self._needed("cpu.cfs_period_us"), str(CPU_PERIOD_US))
                write(self._needed("cpu.cfs_quota_us"), str(quota))
        if tasks_max is not None:
            write(self._needed("pids.max"), str(tasks_max))

    def _limit_memory(self, bytes_max: int) -> None:
        """Memory, with nothing more on swap: a worker that swaps serves nobody."""
        if (modern := self._file("memory.max")) is not None:
            write(modern, str(bytes_max))
            if (swap := self._file("memory.swap.max")) is not None:
                write(swap, "0")
            if (whole := self._file("memory.oom.group")) is not None:
                write(whole, "1")
            return
        write(self._needed("memory.limit_in_bytes"), str(bytes_max))
        if (with_swap := self._file("memory.memsw.limit_in_bytes")) is not None:
            write(with_swap, str(bytes_max))

    def admit(self, pid: int) -> None:
        """Put a process in; what it starts from now on is in, too.

        Raises:
          OSError: there is no such process, or a folder is gone.
        """
        for path in self.paths:
            write(path / "cgroup.procs", str(pid))

    def pids(self) -> list[int]:
        """The processes in it now, in the folders of groups below it, too."""
        found: set[int] = set()
        for path in self.paths:
            for folder in folders_from(path):
                found.update(pids_in(folder))
        return sorted(found)

    def kill(self) -> None:
        """SIGKILL to all in it; also to what they start meanwhile."""
        killer = self._file("cgroup.kill")
        if killer is not None:
            with contextlib.suppress(OSError):  # gone, with all in it; or a threaded group
                write(killer, "1")
                return
        freezer = self._file("freezer.state")
        if freezer is not None:
            _set_frozen(freezer, "FROZEN", FREEZE_TIMEOUT_S)
        self._kill_listed()
        if freezer is not None:  # what is frozen does not die
            _set_frozen(freezer, "THAWED", 0.0)

    def _kill_listed(self) -> None:
        descriptors: dict[int, int] = {}
        for pid in self.pids():
            with contextlib.suppress(OSError):
                descriptors[pid] = os.pidfd_open(pid)
        still_in = set(self.pids())  # whoever is, had its number when the pidfd was opened
        for pid, descriptor in descriptors.items():
            if pid in still_in:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            os.close(descriptor)

    def memory_kills(self) -> int:
        """How many of its processes the kernel has killed for want of memory."""
        modern = self._count("memory.events", "oom_kill")
        return modern if modern is not None else self._count("memory.oom_control", "oom_kill") or 0

    def tasks_refused(self) -> int:
        """How often ``tasks_max`` has refused a fork or a thread."""
        return self._count("pids.events", "max") or 0

    def remove(self) -> list[Path]:
        """Take the folders away. Returns those that stay: somebody is still in them."""
        left: list[Path] = []
        for path in self.paths:
            try:
                folders = folders_from(path)
            except OSError:  # it cannot be looked into now; mostly nothing is in it
                folders = [path]
            for folder in reversed(folders):
                with contextlib.suppress(FileNotFoundError):
                    try:
                        folder.rmdir()
                    except OSError:
                        left.append(folder)
        return left

    def _count(self, name: str, key: str) -> int | None:
        file = self._file(name)
        for line in read(file).splitlines() if file is not None else ():
            if line.startswith(key + " "):
                return int(line.split()[1])
        return None

    def _file(self, name: str) -> Path | None:
        return next((path / name for path in self.paths if (path / name).exists()), None)

    def _needed(self, name: str) -> Path:
        file = self._file(name)
        if file is None:
            raise FileNotFoundError(2, f"no cgroup has {name}")
        return file


def _set_frozen(file: Path, state: str, timeout_s: float) -> None:
    until_s = time.monotonic() + timeout_s
    with contextlib.suppress(FileNotFoundError):
        write(file, state)
        while read(file).strip() != state and time.monotonic() < until_s:
            time.sleep(0.001)
