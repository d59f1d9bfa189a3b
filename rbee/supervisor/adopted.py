"""Processes that became this one's children when their parents ended.

The supervisor is a subreaper, so whatever a worker's descendant leaves behind comes to it, and
not to init: it can be seen, killed and reaped.

Rule 1: nobody else's child is reaped: neither one that `born` was told of, whose owner waits
        for it, nor one in our own session, as a plain `subprocess` has.
Rule 2: who was our child before we were a supervisor, such as a job of the shell that became
        this process by ``exec``, is left alone.
"""

import contextlib
import ctypes
import os
import signal
from pathlib import Path
from typing import Final

import trio

from rbee.logs import Log
from rbee.supervisor.kin import Identity, start_ticks

_PR_SET_CHILD_SUBREAPER: Final = 36  # linux/prctl.h

# Zombies hold a pid and nothing else: there is no hurry.
REAP_EVERY_S: Final = 1.0


def become_subreaper() -> str:
    """Have orphans among our descendants become our children. Source: prctl(2).

    Returns:
      Why the kernel refuses; "" when it does not.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        return os.strerror(ctypes.get_errno())
    return ""


class Adopted:
    """Our children that we did not start.

    Raises:
      OSError: from all but `born` and `forget`: the kernel does not tell who is our child now.
    """

    def __init__(self) -> None:
        self._born: set[int] = set()
        self._before = {Identity(pid, start_ticks(pid)) for pid in _children()}

    def born(self, pid: int) -> None:
        """We have started this one, and somebody waits for it."""
        self._born.add(pid)

    def forget(self, pid: int) -> None:
        """It was reaped, or was given up."""
        self._born.discard(pid)

    def living(self) -> list[Identity]:
        """Those that run, or could."""
        return [identity for identity, is_zombie in self._all() if not is_zombie]

    def reap(self) -> list[int]:
        """Take the exit status of those that have ended. Returns their pids."""
        reaped: list[int] = []
        for identity, is_zombie in self._all():
            if is_zombie:
                with contextlib.suppress(ChildProcessError):
                    pid, _ = os.waitpid(identity.pid, os.WNOHANG)
                    reaped.extend([pid] if pid else [])
        return reaped

    def kill(self) -> list[int]:
        """SIGKILL to those that run. Returns their pids."""
        killed: list[int] = []
        for identity in self.living():
            with contextlib.suppress(ProcessLookupError):
                # Our own child keeps its number until we reap it.
                os.kill(identity.pid, signal.SIGKILL)
                killed.append(identity.pid)
        return killed

    def _all(self) -> list[tuple[Identity, bool]]:
        found: list[tuple[Identity, bool]] = []
        own_session = os.getsid(0)
        for pid in _children():
            if pid in self._born:
                continue
            with contextlib.suppress(OSError):
                identity = Identity(pid, start_ticks(pid))
                if identity not in self._before and os.getsid(pid) != own_session:
                    found.append((identity, _is_zombie(pid)))
        return found


async def keep_reaping(adopted: Adopted, log: Log) -> None:
    """Reap the adopted that have ended, until cancelled."""
    problem = ""
    while True:
        before, problem = problem, ""
        try:
            for pid in adopted.reap():
                log.info("stray_reaped", pid=pid)
        except OSError as error:  # such as without a descriptor: the next look may have one
            problem = str(error)
            if problem != before:
                log.warning("strays_not_seen", problem=problem)
        await trio.sleep(REAP_EVERY_S)


def _children() -> list[int]:
    """Of all threads: one that ends hands its children to another. Source: proc(5)."""
    pids: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            pids.extend(int(pid) for pid in (task / "children").read_text("ascii").split())
    return pids


def _is_zombie(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    return stat.rpartition(")")[2].split()[0] in "ZX"
