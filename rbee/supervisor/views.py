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
    state: str  # of `LifecycleState`; or "empty", "waiting" (back-off), "failed", "stopped"
    pid: int | None
    restarts: int  # since the supervisor started
    failures: int  # in a row
    last_failure: str  # "" when there was none
    cause: str  # of the last failure, of `restart.Cause`; "" when there was none, or it was reset
    breaker: str  # "closed", "open": empty until a reset, "half_open": a worker is tried
    remedy: str  # what to do about the breaker; "" when it is closed
    verdict: str | None  # of `liveness.Verdict`: "alive", "slow"
    concern: str  # why it is not alive; "" when it is
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


@dataclass(frozen=True, slots=True)
class BreakerView:
    """What keeps slots of a model from being filled, and what to do about it."""

    model: str
    cause: str  # of `restart.Cause`
    state: str  # "open", or "half_open" while one worker is tried
    slots: tuple[str, ...]
    reason: str
    remedy: str
    trial_in_s: float | None  # None: an operator must reset it


@dataclass(frozen=True, slots=True)
class CrashView:
    """One crash report, in short."""

    id: str
    time: str  # RFC 3339, UTC
    slot: str
    model: str
    engine: str
    pid: int
    cause: str  # of `restart.Cause`
    how: str


Readiness = Literal["ok", "starting", "unavailable", "draining"]
