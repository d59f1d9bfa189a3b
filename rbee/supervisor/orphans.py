"""Ends what an earlier supervisor left behind, before a new one opens its slots.

Rule 1: a process is recognised by pid, start time, boot and instance, or by the cgroup or the
        mark of such an instance. A number that was given away is never touched.
Rule 2: nothing here knows the new supervisor: it may run beside it, in the warden.
"""

import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from rbee.supervisor.cgroup import Group, folder_name
from rbee.supervisor.kin import Identity, find_marked, is_alive, kill_identity, kill_marked
from rbee.supervisor.records import InstanceRecord, Left, WorkerRecord, read_records, this_machine

# How long SIGKILL may take to act. One that hangs in a driver takes for ever.
GONE_TIMEOUT_S: Final = 2.0
LOOK_EVERY_S: Final = 0.005


@dataclass(frozen=True, slots=True)
class Swept:
    """What was found and done."""

    killed: tuple[int, ...]  # pids of those that are gone
    unkillable: tuple[int, ...]  # still there after `GONE_TIMEOUT_S`
    folders_left: tuple[str, ...]  # cgroups that could not be taken away
    problems: tuple[str, ...]  # records that could not be read


def sweep(run_dir: Path, one: InstanceRecord | None = None) -> Swept:
    """Kill what is left of earlier supervisors on this run directory, and forget them.

    Args:
      one: of this supervisor only, on this machine, whether or not its records are still there;
        None: of all, so only while holding the lock.
    Raises:
      OSError: the run directory cannot be read; not for ``one``.
    """
    left = read_records(run_dir) if one is None else _left_of(one, run_dir)
    here = this_machine()
    instances = [record for record in left.instances if record.where == here]
    workers = [record for record in left.workers if record.where == here]
    names = {record.instance for record in instances}
    names |= {record.instance for record in workers}

    def is_theirs(mark: str) -> bool:
        return mark.partition("/")[0] in names

    killed = _kill(instances, workers, is_theirs) if names else set()
    unkillable = _wait_gone(instances, workers, is_theirs, killed) if names else ()
    folders_left = [
        str(folder) for record in instances for folder in Group(_folders(record)).remove()
    ]
    if not unkillable and not folders_left:
        for file in left.files:
            with contextlib.suppress(OSError):  # it means nobody any more
                file.unlink(missing_ok=True)
    gone = tuple(sorted(killed.difference(unkillable)))
    return Swept(gone, unkillable, tuple(folders_left), left.problems)


def _left_of(one: InstanceRecord, run_dir: Path) -> Left:
    """Its records, and itself: somebody may have deleted the run directory, or what is in it."""
    try:
        left = read_records(run_dir, one.instance)
    except OSError as error:
        return Left((one,), (), (), (f"{run_dir}: {error.strerror}",))
    return replace(left, instances=(one,))


def _kill(
    instances: Iterable[InstanceRecord],
    workers: Iterable[WorkerRecord],
    is_theirs: Callable[[str], bool],
) -> set[int]:
    killed: set[int] = set()
    for record in workers:
        if kill_identity(Identity(record.pid, record.start_ticks), is_theirs):
            killed.add(record.pid)
    for group in _groups(instances):
        killed.update(group.pids())
        group.kill()
    killed.update(kill_marked(is_theirs))
    return killed


def _wait_gone(
    instances: Iterable[InstanceRecord],
    workers: Iterable[WorkerRecord],
    is_theirs: Callable[[str], bool],
    killed: set[int],
) -> tuple[int, ...]:
    """Wait until nobody is left. Returns: who is, after `GONE_TIMEOUT_S`."""
    until_s = time.monotonic() + GONE_TIMEOUT_S
    while True:
        there = {
            record.pid
            for record in workers
            if record.pid in killed and is_alive(Identity(record.pid, record.start_ticks))
        }  # fmt: skip
        for group in _groups(instances):
            there.update(group.pids())
        there.update(identity.pid for identity in find_marked(is_theirs))
        if not there or time.monotonic() >= until_s:
            return tuple(sorted(there))
        for group in _groups(instances):  # without cgroup.kill, a fork may have slipped through
            group.kill()
        time.sleep(LOOK_EVERY_S)


def _groups(instances: Iterable[InstanceRecord]) -> list[Group]:
    """Each folder by itself: the file to kill by lies in the folder of one hierarchy."""
    return [Group([folder]) for record in instances for folder in _folders(record)]


def _folders(record: InstanceRecord) -> list[Path]:
    """Only folders that bear the instance's name, whatever the record says."""
    return [
        Path(each) for each in record.folders if Path(each).name == folder_name(record.instance)
    ]
