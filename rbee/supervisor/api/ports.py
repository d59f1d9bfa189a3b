"""What the HTTP face needs from the rest of the supervisor, and nothing more.

Rule: the face declares these Protocols itself and is handed objects that fit. It knows no
pool, slot, worker or process.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

from rbee.ask import Ask
from rbee.errors import RequestError
from rbee.wire import Delta


class Sink(Protocol):
    """Where the answer to one ask goes. Called synchronously, from the link's receiver task.

    Exactly one last word comes: a delta with ``finish`` set, or `fail`. After a `cancel` by
    the face nothing comes any more.
    """

    def push(self, delta: Delta) -> None: ...

    def fail(self, error: RequestError) -> None: ...


class Generator(Protocol):
    """Takes asks, and gives each to a worker."""

    def submit(self, ask: Ask, sink: Sink, *, remaining_s: float, correlation_id: str) -> int:
        """Admit one ask; its answer goes to ``sink``, never before this returns.

        Returns:
          The request's id, for `cancel`.

        Raises:
          RequestError: refused: unknown model, queue full, draining, no slot can serve it.
        """
        ...

    def cancel(self, request_id: int, reason: str) -> None:
        """End a request. Ids that are done or unknown are ignored."""
        ...


@dataclass(frozen=True, slots=True)
class ModelView:
    """One entry of ``GET /v1/models``."""

    name: str
    engine: str
    created_s: int  # Unix time at which the supervisor opened its slots
    context_length: int | None  # None until a worker was ready once
    is_ready: bool


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One slot and the worker that stands in it, for operators. No secret, no prompt."""

    slot: str  # "bee-tiny-0": worker id, stable over restarts
    model: str
    engine: str
    state: str  # of `LifecycleState`; or "waiting" (back-off), "failed" (until reset), "stopped"
    pid: int | None
    restarts: int  # since the supervisor started
    failures: int  # in a row
    last_failure: str  # "" when there was none
    retry_in_s: float | None  # while waiting
    uptime_s: float | None  # of the process
    phase: str | None  # as the last beat said
    progress: float | None  # while loading, 0..1
    beats: int  # received from this process
    beat_age_s: float | None
    steps: int
    tokens: int
    requests: int  # open on this worker
    batch_size: int | None
    rss_bytes: int | None
    vram_bytes: int | None
    device: str | None
    detail: dict[str, str]


Readiness = Literal["ok", "starting", "unavailable", "draining"]


class Operations(Protocol):
    """What operators see and do. Reads are of the supervisor's own state, never of a worker."""

    def readiness(self) -> Readiness: ...

    def has_started(self) -> bool:
        """Whether every slot was ready once, or has failed for good."""
        ...

    def models(self) -> list[ModelView]: ...

    def workers(self) -> list[WorkerView]: ...

    def queued(self) -> int: ...

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
