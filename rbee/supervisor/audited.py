"""What the audit log hears of the supervisor itself, and of its workers; of these, also what is
counted.
"""

import hashlib
import os
import time
from dataclasses import dataclass

import msgspec

from rbee import __version__
from rbee.audit import Audit
from rbee.audit.events import (
    ConfigLoaded,
    ConfigRejected,
    ConfigReloaded,
    Details,
    Outcome,
    SupervisorStart,
    SupervisorStop,
    WorkerCrash,
    WorkerHang,
    WorkerKill,
    WorkerReady,
    WorkerRestart,
    WorkerShutdown,
    WorkerSpawn,
)
from rbee.config import Config, model_name
from rbee.errors import ExitCode
from rbee.metrics import Metrics


class Presence:
    """Records the supervisor's start, its end, and what configuration holds between them."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._actor = actor()
        self._started_s = time.monotonic()
        self._sha256 = ""

    def config_loaded(self, config: Config) -> None:
        self._sha256 = hashlib.sha256(msgspec.json.encode(config)).hexdigest()
        models = tuple(model_name(model) for model in config.model)
        self._audit.record(ConfigLoaded(sha256=self._sha256, models=models), actor=self._actor)

    async def config_reloaded(self, changed: tuple[str, ...]) -> None:
        """Raises: AuditError: it must not be done."""
        details = ConfigReloaded(sha256=self._sha256, changed=changed, workers=())
        await self._audit.record_durably(details, actor=self._actor)

    async def config_rejected(self, problem: str) -> None:
        """Raises: AuditError."""
        details = ConfigRejected(problem=problem)
        await self._audit.record_durably(details, actor=self._actor, outcome=Outcome.FAILURE)

    def started(self, url: str) -> None:
        details = SupervisorStart(pid=os.getpid(), version=__version__, url=url)
        self._audit.record(details, actor=self._actor)

    def stopped(self, code: ExitCode) -> None:
        uptime_ms = round((time.monotonic() - self._started_s) * 1000)
        details = SupervisorStop(pid=os.getpid(), exit_code=code, uptime_ms=uptime_ms)
        outcome = Outcome.SUCCESS if code is ExitCode.OK else Outcome.FAILURE
        self._audit.record(details, actor=self._actor, outcome=outcome)


class Lives:
    """Records and counts what becomes of workers."""

    def __init__(self, audit: Audit, metrics: Metrics) -> None:
        self._audit = audit
        self._metrics = metrics
        self._actor = actor()

    def spawned(self, worker: str, pid: int, model: str, engine: str) -> None:
        self._record(WorkerSpawn(worker=worker, model=model, engine=engine, pid=pid))

    def ready(self, worker: str, pid: int, load_s: float) -> None:
        self._metrics.worker_ready(worker, load_s)
        self._record(WorkerReady(worker=worker, pid=pid, load_ms=round(load_s * 1000)))

    def killed(self, worker: str, pid: int, signal: str, reason: str) -> None:
        """We sent a signal that ends it."""
        self._metrics.worker_killed(worker, signal)
        self._record(WorkerKill(worker=worker, pid=pid, signal=signal, reason=reason))

    def ended(self, worker: str, pid: int, how: str) -> None:
        """As it was asked to."""
        self._record(WorkerShutdown(worker=worker, pid=pid, how=how))

    def failed(self, worker: str, pid: int | None, verdict: str, failure: "Failed") -> None:
        """It crashed, or hung; or it could not be started.

        Args:
          verdict: of `liveness.Verdict`, if it was ended by it; else "".
        """
        self._metrics.worker_failed(worker, failure.cause)
        if verdict and pid is not None:
            details: Details = WorkerHang(
                worker=worker, pid=pid, verdict=verdict, reason=failure.how
            )
        else:
            details = WorkerCrash(
                worker=worker, pid=pid, cause=failure.cause, exit_code=failure.exit_code,
                signal=failure.signal, how=failure.how,
            )  # fmt: skip
        self._record(details, Outcome.FAILURE)
        delay_ms = None if failure.delay_s is None else round(failure.delay_s * 1000)
        self._record(
            WorkerRestart(
                worker=worker, cause=failure.cause, failures=failure.failures, delay_ms=delay_ms
            ),
            Outcome.FAILURE if delay_ms is None else Outcome.SUCCESS,
        )

    def _record(self, details: Details, outcome: Outcome = Outcome.SUCCESS) -> None:
        self._audit.record(details, actor=self._actor, outcome=outcome)


@dataclass(frozen=True, slots=True)
class Failed:
    """How a worker failed, and what follows."""

    cause: str  # of `restart.Cause`
    how: str
    exit_code: int | None
    signal: int | None
    failures: int  # in a row
    delay_s: float | None  # to the next one; None: the slot stays empty


def actor() -> str:
    """How the audit log names this supervisor."""
    return f"supervisor:{os.getpid()}"
