"""What may be shown of the supervisor's state. Frozen values, no behaviour."""

from dataclasses import dataclass
from typing import Literal


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
