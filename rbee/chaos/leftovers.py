"""What a server has left behind when it is gone: processes, sockets, cgroups, files.

Rule 1: an empty list is the only good one. Each entry names one thing.
"""

import contextlib
import os
import time
from collections.abc import Collection
from pathlib import Path
from typing import Final

import trio

from rbee.chaos.preparations import SHARED_MEMORY
from rbee.chaos.processes import children, descendants, mark, reap_zombies

# After a kill of the supervisor all of its processes are gone within this; what a server that
# stopped by itself has left gets as long to be seen for what it is.
GONE_S: Final = 2.0
LOOK_EVERY_S: Final = 0.02

# The kernel may take a moment to see that the last process of a group has gone.
EMPTY_S: Final = 1.0

_CGROUPS: Final = Path("/sys/fs/cgroup")
_UNIX_SOCKETS: Final = Path("/proc/net/unix")
_RECORD_PREFIX: Final = "instance-"


async def wait_processes_gone(
    *, was_killed: bool, spared: Collection[int] = ()
) -> tuple[list[str], float]:
    """Wait up to `GONE_S` for the end of all that the server has left to this process.

    Args:
      was_killed: then zombies are nobody's fault, and are reaped here as init would.
      spared: processes of the drill itself.
    Returns:
      What is left, and after how many seconds the last one went.
    """
    began_s = time.monotonic()
    while True:
        if was_killed:
            reap_zombies(spared)
        left = [str(each) for each in children(os.getpid()) if each.pid not in spared]
        took_s = time.monotonic() - began_s
        if not left or took_s > GONE_S:
            return left, took_s
        await trio.sleep(LOOK_EVERY_S)


def find_strays(server_pid: int, worker_pids: set[int]) -> list[str]:
    """Processes below the server that belong to no worker of it, and zombies."""
    found: list[str] = []
    living = {mark(pid) for pid in worker_pids}
    for each in descendants(server_pid):
        if each.is_zombie:
            found.append(str(each))
            continue
        belongs_to = mark(each.pid)
        if each.pid not in worker_pids and belongs_to and belongs_to not in living:
            found.append(f"{each}, of a worker that is gone")
    return found


def instances(worker_pids: set[int]) -> set[str]:
    """The server's own names for its runs, by which its cgroups are called."""
    return {found.partition("/")[0] for pid in worker_pids if (found := mark(pid))}


def recorded_instances(run_dir: Path) -> set[str]:
    """The same, as a server has put it down before it made its first cgroup."""
    records = run_dir.glob(f"{_RECORD_PREFIX}*.json")
    return {path.stem.removeprefix(_RECORD_PREFIX) for path in records}


def find_files(run_dir: Path, instance_names: set[str]) -> list[str]:
    """What of a server that has stopped still lies in file systems.

    Shared memory is looked at where the drill has its own: as root.
    """
    found = [f"run directory {run_dir.name}/{name}" for name in _names(run_dir)]
    if run_dir.exists():
        found.append(f"run directory {run_dir.name}")
    with contextlib.suppress(OSError):
        lines = _UNIX_SOCKETS.read_text("utf-8", "replace").splitlines()
        found += [f"socket {line.split()[-1]}" for line in lines if f"{run_dir}/" in line]
    found += [f"cgroup {path}" for path in find_cgroups(instance_names)]
    if os.geteuid() == 0:
        found += [f"shared memory {name}" for name in _names(SHARED_MEMORY)]
    return found


def find_cgroups(instance_names: set[str]) -> list[str]:
    """Groups that are called by one of these instances."""
    return [
        path
        for path, _, _ in os.walk(_CGROUPS)
        if any(name in Path(path).name for name in instance_names)
    ]


def remove_cgroups(instance_names: set[str]) -> None:
    """Take away the groups of servers that were killed, and that nobody has come after."""
    until_s = time.monotonic() + EMPTY_S
    while (left := find_cgroups(instance_names)) and time.monotonic() < until_s:
        for path in reversed(left):
            for below in sorted(Path(path).glob("*/"), reverse=True):
                with contextlib.suppress(OSError):  # it is not empty: it stays to be seen
                    below.rmdir()
            with contextlib.suppress(OSError):
                Path(path).rmdir()
        time.sleep(LOOK_EVERY_S)


def _names(folder: Path) -> set[str]:
    with contextlib.suppress(OSError):
        return {path.name for path in folder.iterdir()}
    return set()
