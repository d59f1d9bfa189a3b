"""What operators see and do: views of slots and workers, readiness, restart and stop."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Protocol

from rbee.errors import ErrorCode, RequestError
from rbee.supervisor.breaker import BreakerState
from rbee.supervisor.crashes import Crashes
from rbee.supervisor.ledger import Held
from rbee.supervisor.lifecycle import TAKES_REQUESTS, WorkerState
from rbee.supervisor.limits import Holding
from rbee.supervisor.pool import Pool
from rbee.supervisor.slot import Slot, SlotState
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
from rbee.supervisor.worker import Worker
from rbee.wire import Beat, Phase


class Gpus(Protocol):
    """Who keeps the books of the GPUs."""

    def held(self, worker_id: str) -> Held | None: ...

    def gpus(self) -> list[GpuView]: ...


class Operations:
    """Reads the state of slots and pool; writes none but by the operator's wish."""

    def __init__(  # noqa: PLR0913  # all that there is to be seen
        self,
        slots: Sequence[Slot],
        pool: Pool,
        crashes: Crashes,
        clock: Callable[[], float],
        created_s: int,
        *,
        gpus: Gpus | None = None,
        disks: Callable[[], list[DiskView]] = list,
        holding: Callable[[str], Holding] = lambda _slot: Holding("", "", ""),
        processor_s: Callable[[int], float | None] = lambda _pid: None,
        last_shutdown: ShutdownView | None = None,
    ) -> None:
        self._slots = slots
        self._pool = pool
        self._crashes = crashes
        self._clock = clock
        self._created_s = created_s
        self._gpus = gpus
        self._disks = disks
        self._holding = holding
        self._processor_s = processor_s
        self._last_shutdown = last_shutdown
        self._has_started = False

    def readiness(self) -> Readiness:
        """Ready means: each model has a worker that takes requests, or is busy with them."""
        if self._pool.is_draining:
            return "draining"
        if all(self._is_served(model) for model in self._models()):
            return "ok"
        return "unavailable" if self.has_started() else "starting"

    def has_started(self) -> bool:
        if not self._has_started:
            self._has_started = all(_has_settled(slot) for slot in self._slots)
        return self._has_started

    def models(self) -> list[ModelView]:
        views = []
        for name in self._models():
            slots = [slot for slot in self._slots if slot.model.name == name]
            lengths = [
                slot.worker.ready.context_length
                for slot in slots
                if slot.worker is not None and slot.worker.ready is not None
            ]
            views.append(
                ModelView(
                    name=name,
                    engine=slots[0].model.engine,
                    created_s=self._created_s,
                    context_length=lengths[0] if lengths else None,
                    is_ready=self._is_served(name),
                )
            )
        return views

    def workers(self) -> list[WorkerView]:
        now_s = self._clock()
        return [self._view(slot, now_s) for slot in self._slots]

    def gpus(self) -> list[GpuView]:
        return [] if self._gpus is None else self._gpus.gpus()

    def disks(self) -> list[DiskView]:
        return self._disks()

    def queued(self) -> int:
        return self._pool.queued

    def queued_for(self, model: str) -> int:
        return self._pool.queued_for(model)

    def open_requests(self) -> int:
        return self._pool.open_requests

    def draining_s(self) -> float:
        since_s = self._pool.draining_since_s
        return 0.0 if since_s is None else self._clock() - since_s

    def last_shutdown(self) -> ShutdownView | None:
        return self._last_shutdown

    def restart_worker(self, slot: str) -> None:
        self._slot(slot).restart()

    def stop_worker(self, slot: str) -> None:
        self._slot(slot).stop()

    def reset_worker(self, slot: str) -> None:
        self._slot(slot).reset()

    def breakers(self) -> list[BreakerView]:
        """Those that are not closed: one for each model and cause."""
        now_s = self._clock()
        found: dict[tuple[str, str], BreakerView] = {}
        for slot in self._slots:
            state, failure = slot.breaker(now_s), slot.failure
            if state is BreakerState.CLOSED or failure is None:
                continue
            key = (slot.model.name, failure.cause.value)
            told = found.get(key)
            trial_in_s = None if slot.refill_s is None else round(slot.refill_s - now_s, 3)
            found[key] = BreakerView(
                model=slot.model.name,
                cause=failure.cause.value,
                state=state.value if told is None else told.state,
                slots=(*(() if told is None else told.slots), slot.slot_id),
                reason=slot.failed_for,
                remedy=failure.remedy,
                trial_in_s=trial_in_s,
            )
        return list(found.values())

    def crashes(self) -> list[CrashView]:
        return self._crashes.newest_first()

    def crash(self, crash_id: str) -> bytes:
        report = self._crashes.report(crash_id)
        if report is None:
            message = "there is no such crash report; GET /v1/rbee/crashes lists them"
            raise RequestError(ErrorCode.NOT_FOUND, message)
        return report

    def _view(self, slot: Slot, now_s: float) -> WorkerView:
        held = None if self._gpus is None else self._gpus.held(slot.slot_id)
        cpu_s = None if slot.worker is None else self._processor_s(slot.worker.pid)
        return _view(slot, now_s, held, self._holding(slot.slot_id), cpu_s)

    def _slot(self, slot_id: str) -> Slot:
        for slot in self._slots:
            if slot.slot_id == slot_id:
                return slot
        known = ", ".join(slot.slot_id for slot in self._slots)
        raise RequestError(ErrorCode.WORKER_NOT_FOUND, f"there is no such slot; known are {known}")

    def _models(self) -> list[str]:
        return list(dict.fromkeys(slot.model.name for slot in self._slots))

    def _is_served(self, model: str) -> bool:
        return any(
            slot.worker is not None and slot.worker.state in TAKES_REQUESTS
            for slot in self._slots
            if slot.model.name == model
        )


def _has_settled(slot: Slot) -> bool:
    is_up = slot.worker is not None and slot.worker.ready is not None
    return is_up or slot.was_ready or slot.state in (SlotState.FAILED, SlotState.STOPPED)


def _view(
    slot: Slot, now_s: float, held: Held | None, holding: Holding, cpu_s: float | None
) -> WorkerView:
    worker, breaker = slot.worker, slot.breaker(now_s)
    beat = worker.beat if worker is not None else None
    ready = worker.ready if worker is not None else None
    return WorkerView(
        slot=slot.slot_id,
        model=slot.model.name,
        engine=slot.model.engine,
        state=slot.state.value if worker is None else worker.state.value,
        pid=None if worker is None else worker.pid,
        restarts=slot.restarts,
        failures=slot.failures(now_s),
        last_failure=slot.last_failure,
        cause="" if slot.failure is None else slot.failure.cause.value,
        breaker=breaker.value,
        remedy="" if breaker is BreakerState.CLOSED else _remedy(slot),
        verdict=None if worker is None else worker.judgement.verdict.value,
        concern="" if worker is None else worker.judgement.reason,
        retry_in_s=None if slot.refill_s is None else round(max(0.0, slot.refill_s - now_s), 3),
        waits_for=slot.waits_for,
        uptime_s=None if worker is None else round(now_s - worker.started_s, 3),
        phase=None if worker is None else _phase(worker),
        progress=_progress(worker),
        beats=0 if worker is None else worker.beats,
        beat_age_s=None if worker is None else round(now_s - worker.beat_s, 3),
        steps=0 if beat is None else beat.step,
        tokens=0 if beat is None else beat.tokens,
        requests=0 if worker is None else worker.open_requests,
        batch_size=None if ready is None else ready.batch_size,
        rss_bytes=None if beat is None else beat.rss_bytes,
        cpu_s=cpu_s,
        vram_bytes=vram_bytes(beat, held),
        vram_reserved_bytes=None if held is None else held.booked_bytes,
        device=None if ready is None else ready.device,
        detail={} if ready is None else ready.detail,
        held_by={name: by for name, by in asdict(holding).items() if by},
    )


def vram_bytes(beat: Beat | None, held: Held | None) -> int | None:
    """What a worker holds of its GPU; None: it has none, or nobody can tell."""
    if held is not None and held.held_bytes is not None:
        return held.held_bytes
    # Engines without a GPU, and those that cannot tell, say 0.
    return None if beat is None else beat.vram_bytes or None


def _remedy(slot: Slot) -> str:
    return "" if slot.failure is None else slot.failure.remedy


def _phase(worker: Worker) -> str:
    if worker.state is WorkerState.READY:
        return Phase.IDLE.value  # known at once; the next beat will say so too
    return (worker.loading if worker.beat is None else worker.beat).phase.value


def _progress(worker: Worker | None) -> float | None:
    if worker is None or worker.state is not WorkerState.LOADING:
        return None
    return worker.loading.fraction
