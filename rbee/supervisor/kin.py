"""All processes that descend from one worker: found, counted and killed together.

Rule 1: where the worker has a cgroup, its kin are who stands in it: nobody leaves by a new
        session or a double fork. Elsewhere they are told by a mark in the environment, which
        descendants inherit, and by who is whose child.
Rule 2: a signal goes to a pidfd whose process was looked at again after it was opened: never to
        a number that was given away.
"""

import contextlib
import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rbee.supervisor.cgroup import Group

# "INSTANCE/SPAWN": whose worker, and which. Not a secret.
MARK_NAME: Final = "RBEE_WORKER"

# Rounds of looking for more, while those found are stopped. Each round finds the children that
# were being made in the round before; only a fork bomb takes more than a few.
ROUNDS_MAX: Final = 20

_PROC: Final = Path("/proc")


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells a process from a later one with the same number."""

    pid: int
    start_ticks: int  # since boot; field 22 of /proc/PID/stat, proc(5)


def start_ticks(pid: int) -> int:
    """When a process was started, in clock ticks since boot.

    Raises:
      OSError: there is no such process.
    """
    return _stat(pid)[1]


@dataclass(frozen=True, slots=True)
class Kin:
    """One worker's processes. Nothing of it waits."""

    mark: str
    group: Group

    def living(self) -> list[int]:
        """Who of them has not ended."""
        if self.group.paths:
            return self.group.pids()
        return [each.pid for each in find_marked(lambda mark: mark == self.mark)]

    def kill(self) -> None:
        """SIGKILL to all of them. They may take a moment to go."""
        if self.group.paths:
            self.group.kill()
        else:
            kill_marked(lambda mark: mark == self.mark)


def kill_identity(identity: Identity, is_meant: Callable[[str], bool]) -> bool:
    """SIGKILL to one process, if its number was not given away.

    Args:
      is_meant: judges its mark. A process whose mark cannot be read is taken for meant.
    """
    return _signal(identity, signal.SIGKILL, is_meant)


def is_alive(identity: Identity) -> bool:
    """Whether it is there, and no zombie."""
    with contextlib.suppress(OSError):
        _, ticks, state = _stat(identity.pid)
        return ticks == identity.start_ticks and state not in "ZX"
    return False


def find_marked(is_meant: Callable[[str], bool]) -> list[Identity]:
    """Every process with such a mark, and their descendants that took it off; never ourselves."""
    marked: set[Identity] = set()
    children: dict[int, list[Identity]] = {}
    for entry in _PROC.iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            parent, ticks, state = _stat(int(entry.name))
            if state in "ZX":
                continue
            identity = Identity(int(entry.name), ticks)
            children.setdefault(parent, []).append(identity)
            mark = read_mark(identity.pid)
            if mark is not None and is_meant(mark):
                marked.add(identity)
    return sorted(_with_descendants(marked, children), key=lambda each: each.pid)


def kill_marked(is_meant: Callable[[str], bool]) -> list[int]:
    """SIGKILL to every process with such a mark, and to their descendants. Returns their pids."""
    found: set[Identity] = set()
    for _ in range(ROUNDS_MAX):  # none may make more while we look
        more = set(find_marked(is_meant)) - found
        if not more:
            break
        for identity in more:
            _signal(identity, signal.SIGSTOP, _anything)
        found |= more
    for identity in found:
        _signal(identity, signal.SIGKILL, _anything)
    return sorted(identity.pid for identity in found)


def read_mark(pid: int) -> str | None:
    """The mark that a process was started with. None: it has none, or it may not be read."""
    prefix = f"{MARK_NAME}=".encode()
    try:
        environment = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return None
    for item in environment.split(b"\0"):
        if item.startswith(prefix):
            return item[len(prefix) :].decode("ascii", "replace")
    return None


def _with_descendants(
    roots: Iterable[Identity], children: dict[int, list[Identity]]
) -> set[Identity]:
    found: set[Identity] = set()
    waiting = list(roots)
    while waiting:
        identity = waiting.pop()
        if identity not in found:
            found.add(identity)
            waiting.extend(children.get(identity.pid, ()))
    return found


def _anything(_mark: str) -> bool:
    return True


def _signal(identity: Identity, number: signal.Signals, is_meant: Callable[[str], bool]) -> bool:
    try:
        descriptor = os.pidfd_open(identity.pid)
    except OSError:
        return False
    try:
        if start_ticks(identity.pid) != identity.start_ticks:
            return False
        mark = read_mark(identity.pid)
        if mark is not None and not is_meant(mark):
            return False
        signal.pidfd_send_signal(descriptor, number)
    except OSError:  # gone meanwhile; or no longer ours to signal
        return False
    finally:
        os.close(descriptor)
    return True


def _stat(pid: int) -> tuple[int, int, str]:
    """Parent, start in ticks and state. Source: proc(5), /proc/PID/stat, fields 4, 22 and 3.

    Raises:
      OSError: there is no such process.
    """
    fields = _stat_fields(pid)
    return int(fields[1]), int(fields[19]), fields[0]


def _stat_fields(pid: int) -> list[str]:
    """Those from the third on."""
    text = (_PROC / str(pid) / "stat").read_text("ascii", "replace")
    # The second field is the command in brackets, which may hold anything.
    return text.rpartition(")")[2].split()


def processor_s(pid: int) -> float | None:
    """Processor time that a process has taken, without its children; None: it cannot be told.

    Source: proc(5), /proc/PID/stat, fields 14 and 15, in clock ticks.
    """
    try:
        fields = _stat_fields(pid)
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def anonymous_bytes(pid: int) -> int:
    """Memory of a process that only swapping could take from it: heaps and shared memory.

    Source: proc(5), /proc/PID/status, in KiB. 0 if there is no such process.
    """
    try:
        text = (_PROC / str(pid) / "status").read_text("ascii", "replace")
    except OSError:
        return 0
    return 1024 * sum(
        int(line.split()[1])
        for line in text.splitlines()
        if line.startswith(("RssAnon:", "RssShmem:", "VmSwap:"))
    )
