"""One worker's processes, from before its spawn until none of them is left.

The order is what keeps any from being lost: cgroup and mark, then spawn and `born`, then `admit`,
which puts it into the cgroup and writes it down, then the gate opens; and `release` at the end.
"""

import contextlib
import secrets
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from rbee.supervisor.adopted import Adopted
from rbee.supervisor.cgroup import Group
from rbee.supervisor.kin import MARK_NAME, Identity, Kin, anonymous_bytes, start_ticks
from rbee.supervisor.limits import WATCHED, Holding, Limits

SPAWN_BYTES: Final = 6

# A worker without a cgroup is looked at ten times a second; for new processes, once a second.
LOOKS_PER_SEARCH: Final = 10


class Notes(Protocol):
    """Where it is written down that there is such a process."""

    def write(self, identity: Identity, /) -> None:
        """Raises: OSError."""
        ...

    def remove(self) -> None: ...


class Custody:
    """What the supervisor has in its hands of one worker."""

    def __init__(  # noqa: PLR0913, PLR0917  # what `Instance` has put together
        self,
        kin: Kin,
        limits: Limits,
        holding: Holding,
        adopted: Adopted,
        notes: Notes,
        quarantine: Callable[[list[Identity]], None],
    ) -> None:
        self.limits: Final = limits
        self.holding: Final = holding
        self._kin = kin
        self._adopted = adopted
        self._notes = notes
        self._quarantine = quarantine
        self._survivors: list[Identity] = []
        self._members: list[int] = []
        self._looks = 0
        self._pid: int | None = None
        self._unseen = ""  # why somebody may have been overlooked

    @property
    def environment(self) -> dict[str, str]:
        """What the worker's environment must hold."""
        return {MARK_NAME: self._kin.mark}

    def born(self, identity: Identity) -> None:
        """There is a process. It waits at its gate; next comes `admit`."""
        self._pid = identity.pid
        self._adopted.born(identity.pid)

    def admit(self, identity: Identity) -> None:
        """Take it in. From any thread.

        Raises:
          OSError: it cannot be put into its cgroup, or cannot be written down.
        """
        self._kin.group.admit(identity.pid)
        self._notes.write(identity)

    def living(self) -> list[int]:
        """Who of the worker and its descendants has not ended, as far as can be seen now."""
        try:
            found = self._kin.living()
        except OSError as error:  # such as without a descriptor
            self._unseen = str(error)
            return []
        self._unseen = ""
        return found

    @property
    def is_unsure(self) -> bool:
        """Whether the last look showed nothing because it could not be made."""
        return bool(self._unseen)

    def kill(self) -> None:
        """SIGKILL to the worker and all of its descendants, as far as they can be seen now."""
        try:
            self._kin.kill()
        except OSError as error:
            self._unseen = str(error)

    def memory_problem(self) -> str:
        """Why they have too much memory; "" if they do not. Read from the kernel's counters."""
        kills = self._kin.group.memory_kills()
        limit = self.limits.memory_bytes_max
        if kills:
            where = "with no memory left" if limit is None else f"at its limit of {limit} bytes"
            return f"out_of_memory: killed by the kernel {where}"
        if self.holding.memory == WATCHED and limit is not None:
            held = sum(map(anonymous_bytes, self._watched()))
            if held > limit:
                return f"out_of_memory: it holds {held} bytes, over its limit of {limit}"
        return ""

    def _watched(self) -> list[int]:
        """Whose memory to add up. Looked for anew now and then only: that reads all of /proc."""
        if self._looks % LOOKS_PER_SEARCH == 0:
            self._members = self.living()
        self._looks += 1
        return self._members

    def tasks_refused(self) -> int:
        """How often `Limits.tasks_max` has kept them from starting another task."""
        return self._kin.group.tasks_refused()

    def survived(self, pids: Iterable[int]) -> None:
        """Not even SIGKILL ends these."""
        for pid in pids:
            with contextlib.suppress(OSError):  # gone now
                self._survivors.append(Identity(pid, start_ticks(pid)))

    def release(self) -> list[str]:
        """Give up what was made for them. Returns: what could not be taken away."""
        if self._pid is not None:
            self._adopted.forget(self._pid)
        left = self._kin.group.remove()
        if self._kin.group.paths and not left:
            self._unseen = ""  # a group that could be taken away held nobody
        if self._survivors:
            self._quarantine(self._survivors)
        elif not left and not self._unseen:  # what is left, the next supervisor is to know of
            self._notes.remove()
        unseen = [f"processes that could not be looked for: {self._unseen}"] if self._unseen else []
        return [str(path) for path in left] + unseen


def new_spawn() -> str:
    """A name for one process of a worker."""
    return secrets.token_hex(SPAWN_BYTES)


class NoNotes:
    """For who needs none: nobody comes after it."""

    def write(self, _identity: Identity) -> None:
        return

    def remove(self) -> None:
        return


def _nothing(_survivors: list[Identity]) -> None:
    return


def loose_custody(_worker_id: str) -> Custody:
    """Without cgroup, limits and record: all it has is the mark. For tests, and small tools."""
    kin = Kin(f"loose/{new_spawn()}", Group(()))
    return Custody(kin, Limits(), Holding("", "", ""), Adopted(), NoNotes(), _nothing)
