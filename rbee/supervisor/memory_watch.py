"""Sees that a worker has too much memory, and says so. One task per worker.

Where a cgroup holds the limit, the kernel kills; we read its counters, and end what it left: the
kernel of version 1 picks one process of the worker, and the rest would go on half dead. Where
none does, what its processes hold is added up here, and that is the limit.
"""

from typing import Final, Protocol

import trio

from rbee.logs import Log
from rbee.supervisor.limits import WATCHED, Holding

# A file or two is read each time.
COUNTERS_EVERY_S: Final = 1.0

# A process may take some GB/s: over the limit by what it takes in this time.
ADD_UP_EVERY_S: Final = 0.1


class Watched(Protocol):
    """What is needed of a worker's processes."""

    @property
    def holding(self) -> Holding: ...

    def memory_problem(self) -> str: ...

    def tasks_refused(self) -> int: ...


class Doomed(Protocol):
    """What is needed of a worker."""

    @property
    def worker_id(self) -> str: ...

    @property
    def custody(self) -> Watched: ...

    def kill_for_memory(self, cause: str) -> None: ...


async def watch_memory(child: Doomed, log: Log, watching: trio.CancelScope) -> None:
    """Watch until ``watching`` is cancelled, or the worker has too much."""
    is_ours = child.custody.holding.memory == WATCHED
    told_refused = 0
    with watching:
        while True:
            await trio.sleep(ADD_UP_EVERY_S if is_ours else COUNTERS_EVERY_S)
            refused = child.custody.tasks_refused()
            if refused and not told_refused:
                log.warning("worker_tasks_refused", worker=child.worker_id, times=refused)
                told_refused = refused
            problem = child.custody.memory_problem()
            if problem:
                child.kill_for_memory(problem)
                return
