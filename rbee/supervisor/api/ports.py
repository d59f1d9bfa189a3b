"""What the HTTP face needs from the rest of the supervisor, and nothing more.

Rule: the face declares these Protocols itself and is handed objects that fit. It knows no
pool, slot, worker or process.
"""

from collections.abc import Sequence
from typing import Protocol

from rbee.ask import Ask
from rbee.audit.events import JwtRevoked
from rbee.errors import RequestError
from rbee.rate_limits import Priority
from rbee.store import KeyRow
from rbee.supervisor.views import (
    BreakerView,
    CrashView,
    DiskView,
    GpuView,
    ModelView,
    Readiness,
    ShutdownView,
    WorkerView,
)
from rbee.wire import Delta

__all__ = [
    "BreakerView", "CrashView", "DiskView", "Generator", "GpuView", "JwtRevocations", "KeyStore",
    "ModelView", "Operations", "Readiness", "ShutdownView", "Sink", "WorkerView",
]  # fmt: skip


class Sink(Protocol):
    """Where the answer to one ask goes. Called synchronously, from the link's receiver task.

    Exactly one last word comes: a delta with ``finish`` set, or `fail`. After a `cancel` by
    the face nothing comes any more.
    """

    def push(self, delta: Delta) -> None: ...

    def flush(self, now_s: float) -> None:
        """Send what was pushed since the last flush: nothing more comes right now."""
        ...

    def fail(self, error: RequestError) -> None: ...

    def moved(self) -> None:
        """Its worker has ended; another goes on. Nothing that was pushed comes again."""
        ...


class Generator(Protocol):
    """Takes asks, and gives each to a worker."""

    def submit(  # noqa: PLR0913  # all that is said of an order
        self,
        asks: Sequence[Ask],
        sinks: Sequence[Sink],
        *,
        remaining_s: float,
        first_token_timeout_s: float,
        correlation_id: str,
        priority: Priority = Priority.NORMAL,
        cache_salt: bytes = b"",
    ) -> list[int]:
        """Admit all asks of an order, or none. No answer comes to a sink before this returns.

        Args:
          asks: all of one model.
          remaining_s: what the answers may take in all.
          first_token_timeout_s: what the first token of any may take.
          cache_salt: what engines keep of one ask is reused for those with the same one alone.

        Returns:
          The requests' ids, for `cancel`.

        Raises:
          RequestError: refused: unknown model, queue full, draining, no slot can serve it.
        """
        ...

    def cancel(self, request_id: int, reason: str) -> None:
        """End a request. Ids that are done or unknown are ignored."""
        ...


class JwtRevocations(Protocol):
    """The JWTs that were revoked."""

    def listed(self) -> dict[str, int]:
        """Those that would be good by themselves: until when, by their ``jti``."""
        ...

    def kept_until_s(self, expires_s: int | None) -> int:
        """Until when a revocation that is made now is kept; ``expires_s``: the JWT's own end."""
        ...

    def record_of(self, jti: str, expires_s: int) -> JwtRevoked:
        """What the audit log is to hear of it."""
        ...

    async def revoke(self, jti: str, until_s: int) -> None:
        """Revoke one. Raises: StoreError: it could not be kept."""
        ...


class KeyStore(Protocol):
    """The API keys, and what can be done to them.

    What changes them waits for the disk. It raises `StoreError` where that could not be done.
    """

    @property
    def state(self) -> str:
        """Whether they can be changed now: "ok"; or "unavailable", "replaced"."""
        ...

    def rows(self) -> list[KeyRow]:
        """All of them, as they were a moment ago."""
        ...

    def row(self, key_id: str) -> KeyRow | None: ...

    async def add(self, row: KeyRow) -> None:
        """Keep a new key; it is good from then on."""
        ...

    async def replace(self, old_id: str, new: KeyRow, *, retired_s: int, reason: str) -> None:
        """Keep a new key, and let an old one expire at that Unix time."""
        ...

    async def revoke(self, key_id: str, now_s: int, reason: str) -> bool:
        """Revoke a key; it is good for nothing from then on. False: there is none to revoke."""
        ...


class Operations(Protocol):
    """What operators see and do. Reads are of the supervisor's own state, never of a worker."""

    def readiness(self) -> Readiness: ...

    def has_started(self) -> bool:
        """Whether every slot was ready once, or has failed for good."""
        ...

    def models(self) -> list[ModelView]: ...

    def workers(self) -> list[WorkerView]: ...

    def queued(self) -> int: ...

    def queued_for(self, model: str) -> int: ...

    def open_requests(self) -> int: ...

    def draining_s(self) -> float:
        """For how long; 0 if it is not."""
        ...

    def last_shutdown(self) -> ShutdownView | None:
        """How the server before was shut down; None: it was not, or there was none."""
        ...

    def gpus(self) -> list[GpuView]:
        """Those that workers use."""
        ...

    def disks(self) -> list[DiskView]: ...

    def restart_worker(self, slot: str) -> None:
        """Drain and replace the worker of a slot; a failed or stopped slot is filled again.

        Raises:
          RequestError: WORKER_NOT_FOUND.
        """
        ...

    def stop_worker(self, slot: str) -> None:
        """Drain and stop the worker of a slot; the slot stays empty until restarted.

        Raises:
          RequestError: WORKER_NOT_FOUND.
        """
        ...

    def reset_worker(self, slot: str) -> None:
        """Forget the failures of a slot; fill it now if it waits or has failed.

        Raises:
          RequestError: WORKER_NOT_FOUND.
        """
        ...

    def breakers(self) -> list[BreakerView]:
        """Those that are not closed."""
        ...

    def crashes(self) -> list[CrashView]:
        """The crash reports that are kept, the newest first."""
        ...

    def crash(self, crash_id: str) -> bytes:
        """One crash report, as JSON.

        Raises:
          RequestError: NOT_FOUND.
        """
        ...
