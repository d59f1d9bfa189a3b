"""A whole request that waits before it is answered."""

from dataclasses import dataclass

from rbee.supervisor.access.access import Pending
from rbee.supervisor.lane.head import Head


@dataclass(frozen=True, slots=True)
class Held:
    """What is kept of it meanwhile."""

    head: Head
    body: bytes | None  # None: it has not come in time
    pending: Pending | None  # until it is known who makes it; None: for its turn

    @property
    def is_known(self) -> bool:
        """Whether it is known by now who makes it."""
        return self.pending is not None and self.pending.verification.is_done
