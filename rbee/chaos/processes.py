"""Processes as the kernel shows them: who descends from whom, and what was left behind.

Rule 1: nothing is found by its name. A drill is a subreaper: whatever its server leaves behind,
        in whichever session, becomes the drill's own child.
Rule 2: a signal goes to a pidfd whose process was looked at after it was opened.
"""

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# Killed processes are gone within milliseconds, unless they hang in the kernel.
END_S: Final = 3.0
LOOK_EVERY_S: Final = 0.01

_PROC: Final = Path("/proc")
_PR_SET_CHILD_SUBREAPER: Final = 36  # linux/prctl.h

# What each worker, and all that it starts, has in its environment: docs/limits.md.
_MARK: Final = b"RBEE_WORKER="


@dataclass(frozen=True, slots=True)
class Seen:
    """A process at the moment of a look. Source: proc(5), /proc/PID/stat, fields 1 to 4."""

    pid: int
    name: str
    state: str
    parent: int

    @property
    def is_zombie(self) -> bool:
        return self.state in "ZX"

    def __str__(self) -> str:
        kind = "zombie" if self.is_zombie else "process"
        return f"{kind} {self.pid} ({self.name})"


def adopt_orphans() -> None:
    """From now on, descendants whose parents have ended become children of this process."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER")


def heed_sigterm() -> None:
    """Take SIGTERM for Ctrl-C from now on: what was begun is ended, and cleared away."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: signal.raise_signal(signal.SIGINT))
    # A shell that starts us in the background has SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def look() -> dict[int, Seen]:
    """All processes of this moment."""
    found: dict[int, Seen] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                found[int(entry.name)] = _seen(int(entry.name))
    return found


def children(parent: int) -> list[Seen]:
    return [each for each in look().values() if each.parent == parent]


def descendants(ancestor: int) -> list[Seen]:
    """Children, their children, and so on."""
    everybody = look()
    family = {ancestor}
    has_grown = True
    while has_grown:
        more = {each.pid for each in everybody.values() if each.parent in family} - family
        family |= more
        has_grown = bool(more)
    return [everybody[pid] for pid in sorted(family - {ancestor})]


def mark(pid: int) -> str:
    """ "INSTANCE/SPAWN" of the worker that it is, or belongs to; "" for other processes."""
    with contextlib.suppress(OSError):
        for item in (_PROC / str(pid) / "environ").read_bytes().split(b"\0"):
            if item.startswith(_MARK):
                return item[len(_MARK) :].decode("ascii", "replace")
    return ""


def descriptors(pid: int) -> int:
    """How many it has open. 0: it has ended."""
    with contextlib.suppress(OSError):
        return len(os.listdir(_PROC / str(pid) / "fd"))  # noqa: PTH208  # only counted
    return 0


def memory_bytes(pid: int) -> int:
    """How much of it is in memory. 0: it has ended. Source: proc(5), /proc/PID/statm."""
    with contextlib.suppress(OSError):
        pages = (_PROC / str(pid) / "statm").read_text("ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    return 0


def signal_child(parent: int, pid: int, number: signal.Signals) -> bool:
    """Send a signal to a child of ``parent``. False: it is not, or no longer, its child."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if _seen(pid).parent != parent:
            return False
        signal.pidfd_send_signal(descriptor, number)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def end_children() -> None:
    """Kill and reap all that was left to this process, and what is left to it by that."""
    until_s = time.monotonic() + END_S
    while (left := children(os.getpid())) and time.monotonic() < until_s:
        for each in left:
            signal_child(os.getpid(), each.pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(each.pid, os.WNOHANG)
        time.sleep(LOOK_EVERY_S)


def reap_zombies(spared: Iterable[int] = ()) -> None:
    """Do for what was left to this process what init does."""
    for each in children(os.getpid()):
        if each.is_zombie and each.pid not in spared:
            with contextlib.suppress(OSError):
                os.waitpid(each.pid, os.WNOHANG)


def _seen(pid: int) -> Seen:
    """Raises: OSError: there is no such process."""
    text = (_PROC / str(pid) / "stat").read_text("ascii", "replace")
    # The second field is the command in brackets, which may hold anything.
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    return Seen(pid, head.partition("(")[2], fields[0], int(fields[1]))
