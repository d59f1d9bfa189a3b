"""One run of a supervisor: what it makes outside of itself, and takes away again.

Enter it while the run directory is held and before the first worker; leave it after the last.
"""

import errno
import functools
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

import trio

from rbee.errors import RunDirError
from rbee.logs import Log
from rbee.supervisor.adopted import Adopted
from rbee.supervisor.cgroup import Ground, Group, Means, Place
from rbee.supervisor.custody import Custody, new_spawn
from rbee.supervisor.gpu_quarantine import GpuQuarantine
from rbee.supervisor.kin import Identity, Kin, is_alive
from rbee.supervisor.limits import Holding, Limits, check_limits, controllers_needed, judge_holding
from rbee.supervisor.orphans import Swept, sweep
from rbee.supervisor.records import (
    InstanceRecord,
    WorkerNotes,
    WorkerRecord,
    remove_record,
    this_machine,
    write_record,
)

INSTANCE_BYTES: Final = 8

# At the end: how long what was killed may take to leave its cgroup.
CLOSE_TIMEOUT_S: Final = 1.0
LOOK_EVERY_S: Final = 0.005

UNKILLABLE_REMEDY: Final = (
    "they hang in the kernel, mostly in a driver, and keep their memory; reboot"
)

# As often as the local face looks for its socket.
MEND_EVERY_S: Final = 5.0


class Instance:
    """Hands out a `Custody` for each worker process.

    Args:
      limits: of each worker, by worker id.
      gpus: of each worker that uses one: which.
      mend_run_dir: makes the run directory again if it was deleted, and says whether it was.
    """

    def __init__(  # noqa: PLR0913  # each is one thing that it takes away again
        self,
        run_dir: Path,
        places: Sequence[Place],
        limits: Mapping[str, Limits],
        log: Log,
        gpus: Mapping[str, int] | None = None,
        *,
        mend_run_dir: Callable[[], bool] = lambda: False,
    ) -> None:
        self.name: Final = secrets.token_hex(INSTANCE_BYTES)
        self.run_dir: Final = run_dir
        self.adopted: Final = Adopted()
        self._limits = limits
        self._gpus = gpus or {}
        self._mend_run_dir = mend_run_dir
        self._quarantine = GpuQuarantine()
        self._survivors: list[tuple[WorkerNotes, list[Identity]]] = []  # of SIGKILL
        self._left_nothing: bool | None = None  # None: not closed
        self._log = log
        self._ground = Ground(self.name, places)
        self._where = this_machine()
        folders = tuple(str(folder) for folder in self._ground.folders)
        self._record = InstanceRecord(self.name, self._where, folders)

    def __enter__(self) -> "Instance":
        """Raises: ConfigError: a limit cannot be held. RunDirError: nothing can be written down."""
        try:
            tell_swept(sweep(self.run_dir), self._log)
            write_record(self.run_dir, self._record)
        except OSError as error:
            raise RunDirError(f"run_dir {self.run_dir}: {error.strerror}") from error
        self._ground.open(controllers_needed(self._limits.values()))
        try:
            self._check_limits()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> bool:
        """End and take away what is left. The first time; then it only says again what it has said.

        Returns:
          Whether nothing is left. Else the log tells what is, and the next supervisor is to know.
        """
        if self._left_nothing is None:
            self._left_nothing = self._end_all()
        return self._left_nothing

    @property
    def folders(self) -> tuple[str, ...]:
        """In which the cgroups of its workers lie."""
        return self._record.folders

    @property
    def means(self) -> Means:
        return self._ground.means

    def holding(self, worker_id: str) -> Holding:
        """By what the limits of that worker are held."""
        return judge_holding(self._limits[worker_id], self._by_controller())

    def gpu_problem(self, gpu: int) -> str:
        """Why no worker may be started on that GPU; "" if one may."""
        return self._quarantine.problem(gpu)

    def custody(self, worker_id: str) -> Custody:
        """For one process that is about to be spawned.

        Raises:
          OSError: its cgroup cannot be made, or not with the limits that it is to have; or its
            GPU is in quarantine; or the run directory was deleted and cannot be made again.
        """
        gpu = self._gpus.get(worker_id)
        if gpu is not None and (problem := self._quarantine.problem(gpu)):
            raise OSError(errno.EBUSY, problem)
        self.mend_run_dir()
        spawn, limits = new_spawn(), self._limits[worker_id]
        notes = WorkerNotes(
            self.run_dir, WorkerRecord(self.name, self._where, worker_id, spawn, 0, 0)
        )
        return Custody(
            Kin(f"{self.name}/{spawn}", self._new_group(spawn, limits)),
            limits,
            self.holding(worker_id),
            self.adopted,
            notes,
            functools.partial(self._keep_off, worker_id, notes),
        )

    def mend_run_dir(self) -> None:
        """Make it, and our record in it, again if somebody has deleted them.

        Raises:
          OSError: it is gone, and cannot be had again.
        """
        try:
            was_gone = self._mend_run_dir()
        except RunDirError as error:
            raise OSError(errno.ENOTDIR, str(error)) from error
        if was_gone or not (self.run_dir / self._record.name).exists():
            # The records of workers that run now are lost; their cgroup or mark still tells them.
            write_record(self.run_dir, self._record)
            self._log.warning("run_dir_mended", run_dir=str(self.run_dir))

    def _keep_off(self, worker_id: str, notes: WorkerNotes, survivors: list[Identity]) -> None:
        self._survivors.append((notes, survivors))
        gpu = self._gpus.get(worker_id)
        if gpu is not None:
            self._quarantine.add(gpu, worker_id, survivors)
            self._log.error(
                "gpu_quarantined", gpu=gpu, worker=worker_id, problem=self._quarantine.problem(gpu)
            )

    def _new_group(self, spawn: str, limits: Limits) -> Group:
        group = self._ground.group(spawn)
        means = self._by_controller()
        memory = limits.memory_bytes_max if means["memory"] else None
        try:
            group.make()
            group.limit(memory, limits.cpus, limits.tasks_max)
        except OSError as error:
            group.remove()
            if limits != Limits():
                raise
            # Without limits a group is but one of two ways to find all of a worker's processes.
            self._log.warning("cgroup_failed", problem=str(error))
            return Group(())
        return group

    def _by_controller(self) -> dict[str, str]:
        means = self._ground.means
        return {"memory": means.memory, "cpu": means.cpu, "pids": means.pids}

    def _check_limits(self) -> None:
        means = self._ground.means
        for worker_id, limits in self._limits.items():
            check_limits(worker_id, limits, self._by_controller(), means.problems)
        self._log.info(
            "limits", kill=means.kill or "by mark", memory=means.memory or "watch",
            cpu=means.cpu, pids=means.pids, problems=list(means.problems),
        )  # fmt: skip
        watched = [name for name in self._limits if self.holding(name).memory == "watch"]
        if watched:
            self._log.warning(
                "memory_only_watched", workers=watched, problems=list(means.problems),
                remedy="the limit holds, but later than the kernel's; see docs/limits.md",
            )  # fmt: skip

    def _end_all(self) -> bool:
        until_s = time.monotonic() + CLOSE_TIMEOUT_S
        there, problem = self._end_adopted()
        killed = set(there)
        while (
            (left := self._ground.close()) or there or problem  # a look that failed is made again
        ) and time.monotonic() < until_s:
            time.sleep(LOOK_EVERY_S)
            there, problem = self._end_adopted()
            killed.update(there)
        self._tell_strays(killed.difference(there), there)
        has_survivors = self._forget_the_dead()
        if left:
            self._log.error("cgroups_left", folders=[str(path) for path in left])
        if problem:
            self._log.error("strays_not_seen", problem=problem)
        is_empty = not left and not problem and not there
        if is_empty:  # else the next supervisor tries again
            remove_record(self.run_dir, self._record.name)
        return is_empty and not has_survivors

    def _forget_the_dead(self) -> bool:
        """Returns: whether somebody whom SIGKILL did not end still lives."""
        has_survivors = False
        for notes, survivors in self._survivors:
            if any(map(is_alive, survivors)):  # the next supervisor is to know of them
                has_survivors = True
            else:
                notes.remove()
        return has_survivors

    def _end_adopted(self) -> tuple[list[int], str]:
        """Returns: who was still there, and was killed; why they could not be looked for."""
        try:
            there = self.adopted.kill()
            self.adopted.reap()
        except OSError as error:
            return [], str(error)
        return there, ""

    def _tell_strays(self, gone: set[int], there: list[int]) -> None:
        if gone:
            self._log.warning("strays_killed", pids=sorted(gone))
        if there:
            self._log.error("strays_unkillable", pids=there, remedy=UNKILLABLE_REMEDY)


async def keep_run_dir(instance: Instance, log: Log) -> None:
    """Mend the run directory soon after it was deleted, until cancelled.

    Else whoever comes after us would not know of us, and could take our place while we run.
    """
    problem = ""
    while True:
        await trio.sleep(MEND_EVERY_S)
        before, problem = problem, ""
        try:
            instance.mend_run_dir()
        except OSError as error:
            problem = error.strerror or type(error).__name__
        if problem not in ("", before):
            log.error("run_dir_lost", problem=problem, effect="no worker can be started")


def tell_swept(swept: Swept, log: Log) -> None:
    """Log what an earlier supervisor had left."""
    if swept.problems:
        log.warning("records_unreadable", problems=list(swept.problems))
    if swept.killed:
        log.warning("orphans_killed", pids=list(swept.killed))
    if swept.unkillable:
        log.error("orphans_unkillable", pids=list(swept.unkillable), remedy=UNKILLABLE_REMEDY)
    if swept.folders_left:
        log.error("cgroups_left", folders=list(swept.folders_left))
