"""What operators see and do: views of slots and workers, readiness, restart and stop."""

from collections.abc import Callable, Sequence

from rbee.errors import ErrorCode, RequestError
from rbee.supervisor.lifecycle import TAKES_REQUESTS, WorkerState
from rbee.supervisor.pool import Pool
from rbee.supervisor.slot import Slot, SlotState
from rbee.supervisor.views import ModelView, Readiness, WorkerView
from rbee.supervisor.worker import Worker
from rbee.wire import Phase


class Operations:
    """Reads the state of slots and pool; writes none but by the operator's wish."""

    def __init__(
        self, slots: Sequence[Slot], pool: Pool, clock: Callable[[], float], created_s: int
    ) -> None:
        self._slots = slots
        self._pool = pool
        self._clock = clock
        self._created_s = created_s
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
        return [_view(slot, now_s) for slot in self._slots]

    def queued(self) -> int:
        return self._pool.queued

    def restart_worker(self, slot: str) -> None:
        self._slot(slot).restart()

    def stop_worker(self, slot: str) -> None:
        self._slot(slot).stop()

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


def _view(slot: Slot, now_s: float) -> WorkerView:
    worker = slot.worker
    beat = worker.beat if worker is not None else None
    ready = worker.ready if worker is not None else None
    return WorkerView(
        slot=slot.slot_id,
        model=slot.model.name,
        engine=slot.model.engine,
        state=slot.state.value if worker is None else worker.state.value,
        pid=None if worker is None else worker.pid,
        restarts=slot.restarts,
        failures=slot.failures,
        last_failure=slot.last_failure,
        retry_in_s=None if slot.refill_s is None else round(max(0.0, slot.refill_s - now_s), 3),
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
        vram_bytes=None if beat is None else beat.vram_bytes,
        device=None if ready is None else ready.device,
        detail={} if ready is None else ready.detail,
    )


def _phase(worker: Worker) -> str:
    if worker.state is WorkerState.READY:
        return Phase.IDLE.value  # known at once; the next beat will say so too
    return (worker.loading if worker.beat is None else worker.beat).phase.value


def _progress(worker: Worker | None) -> float | None:
    if worker is None or worker.state is not WorkerState.LOADING:
        return None
    return worker.loading.fraction
