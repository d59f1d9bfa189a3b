"""What may be shown of the supervisor's state. Frozen values, no behaviour."""

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True, slots=True)
class ModelView:
    """One entry of ``GET /v1/models``."""

    name: str
    engine: str
    created_s: int  # Unix time at which the supervisor opened its slots
    context_length: int | None  # None until a worker was ready once
    is_ready: bool


# Of a slot, and of the worker in it.
WORKER_STATES: Final = (
    "empty", "waiting", "failed", "stopped",
    "starting", "loading", "ready", "busy", "draining",
)  # fmt: skip
GPU_STATES: Final = ("ok", "hot", "quarantined", "unknown")
DISK_STATES: Final = ("ok", "low", "unknown")


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One slot and the worker that stands in it, for operators. No secret, no prompt."""

    slot: str  # "bee-tiny-0": worker id, stable over restarts
    model: str
    engine: str
    state: str  # of `WORKER_STATES`; "waiting" for the back-off, or for what `waits_for` says
    pid: int | None
    restarts: int  # since the supervisor started
    failures: int  # in a row
    last_failure: str  # "" when there was none
    cause: str  # of the last failure, of `restart.Cause`; "" when there was none, or it was reset
    breaker: str  # "closed", "open": empty until a reset, "half_open": a worker is tried
    remedy: str  # what to do about the breaker; "" when it is closed
    verdict: str | None  # of `liveness.Verdict`: "alive", "slow"
    concern: str  # why it is not alive; "" when it is
    retry_in_s: float | None  # while waiting for the back-off
    waits_for: str  # why it is not let onto its GPU yet; "" if it does not wait for that
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
    cpu_s: float | None  # processor time of the process so far; None: it cannot be told
    vram_bytes: int | None  # as NVML says of its process; where it does not, as the worker says
    vram_reserved_bytes: int | None  # of its GPU; None: nothing is, or it has none
    device: str | None
    detail: dict[str, str]
    held_by: dict[str, str]  # each of its limits, by what: "cgroup2", "cgroup1", "watch"


@dataclass(frozen=True, slots=True)
class GpuView:
    """One GPU that workers use."""

    index: int  # as NVML counts
    name: str
    state: str  # of `GPU_STATES`; "unknown": NVML does not answer
    problem: str  # why it is not ok
    measured_by: str  # what workers hold: by "process", by "free_memory", or as the "books" say
    memory_total_bytes: int
    memory_free_bytes: int | None
    reserved_bytes: int  # for workers
    temperature_c: int | None
    temperature_limit_c: float | None


@dataclass(frozen=True, slots=True)
class DiskView:
    """One folder of ours, and the file system that it is on."""

    place: str  # "state_dir", "run_dir"
    state: str  # of `DISK_STATES`; "unknown": it cannot be looked at
    problem: str
    free_bytes: int | None
    total_bytes: int | None


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
    pid: int | None  # None: it was never started
    cause: str  # of `restart.Cause`
    how: str


@dataclass(frozen=True, slots=True)
class ShutdownView:
    """How a shutdown went."""

    drain_s: float  # until no request was waited for any more
    faces_s: float  # until the last connection was closed
    workers_s: float  # until the last worker was gone
    cut_requests: int  # that had not ended when draining was over
    killed_workers: int  # that were sent a signal


Readiness = Literal["ok", "starting", "unavailable", "draining"]
