"""Lets workers onto GPUs when their memory is there, and keeps the books of it true.

Rule 1: NVML is asked in a thread, one at a time, and never waited for longer than `LOOK_S_MAX`:
        a call that hangs in the driver holds its thread and nobody else.
Rule 2: without an answer the books alone decide (`ledger`), and that is said, once.
"""

from collections.abc import Callable, Mapping
from typing import Final, Protocol

import trio

from rbee.config import GpuConfig
from rbee.logs import Log
from rbee.supervisor.demands import GpuPlace
from rbee.supervisor.devices import Gpu, GpuSurvey
from rbee.supervisor.ledger import Answer, Granted, Held, Ledger, Wait, held_by
from rbee.supervisor.views import GpuView
from rbee.threads import thread_refusals

LOOK_S_MAX: Final = 2.0

# What was seen so short a time ago is not asked for again.
FRESH_S: Final = 0.05


class OnGpu(Protocol):
    """What is needed of a worker."""

    @property
    def pid(self) -> int: ...

    @property
    def ready(self) -> object | None: ...


class GpuGate:
    """Implements `slot.Gate`. Of all workers, and the only writer of the ledgers.

    Args:
      places: of the workers that use a GPU.
      first: what was found as the supervisor started.
      survey: asks NVML. May block, and is called in a thread.
      quarantine: why a GPU may not be used; "" if it may.
    """

    def __init__(  # noqa: PLR0913  # what it stands between
        self,
        places: Mapping[str, GpuPlace],
        first: GpuSurvey,
        survey: Callable[[], GpuSurvey],
        settings: GpuConfig,
        log: Log,
        *,
        quarantine: Callable[[int], str] = lambda _gpu: "",
    ) -> None:
        self._places = places
        self._survey = survey
        self._settings = settings
        self._log = log
        self._quarantine = quarantine
        self._names = {gpu.index: (gpu.name, gpu.uuid) for gpu in first.gpus}
        self._seen = first
        self._problem = ""  # why NVML does not answer
        self._workers: dict[str, OnGpu] = {}
        self._looked_s = -1.0
        self._looking = trio.Lock()
        self._one_call = trio.CapacityLimiter(1)
        self._told: dict[tuple[int, str], str] = {}
        self._ledgers = {
            gpu.index: Ledger(gpu.index, gpu.memory_total_bytes, settings.temperature_c_max)
            for gpu in first.gpus
            if any(place.gpu == gpu.index for place in places.values())
        }
        self._take(first, 0.0)

    # --- for slots

    @property
    def room_timeout_s(self) -> float:
        """For how long to wait for what does not change by itself."""
        return self._settings.room_timeout_s

    async def ask(self, worker_id: str) -> Answer:
        """Book what a worker needs, if it is to be had now. Takes `LOOK_S_MAX` at most.

        Who was granted something says `gone` in the end, whatever happens; cancelling this books
        nothing.
        """
        place = self._places.get(worker_id)
        if place is None:
            return Granted(None)
        if problem := self._quarantine(place.gpu):
            return Wait(problem, may_change=True)
        await self._look()
        answer = self._ledgers[place.gpu].ask(worker_id, place.demand)
        if isinstance(answer, Granted):
            self._log.info(
                "vram_reserved", worker=worker_id, gpu=place.gpu, bytes=answer.bytes_max,
                least_bytes=place.demand.least_bytes,
            )  # fmt: skip
        return answer

    def born(self, worker_id: str, worker: OnGpu) -> None:
        """It has a process."""
        if worker_id in self._places:
            self._workers[worker_id] = worker
            self._ledger(worker_id).born(worker_id, worker.pid)

    def gone(self, worker_id: str) -> None:
        """Its process has ended, or could not be started."""
        if worker_id in self._places:
            self._workers.pop(worker_id, None)
            self._ledger(worker_id).gone(worker_id, trio.current_time())

    # --- for crash reports and operators

    def seen(self, worker_id: str) -> GpuSurvey | None:
        """What was seen at the last look, if the worker uses a GPU."""
        return self._seen if worker_id in self._places else None

    def held(self, worker_id: str) -> Held | None:
        return held_by(self._ledgers.values(), worker_id)

    def gpus(self) -> list[GpuView]:
        return [self._view(ledger) for ledger in self._ledgers.values()]

    # --- for the supervisor

    async def watch(self) -> None:
        """Look at the GPUs now and then, until cancelled."""
        while self._ledgers:
            await trio.sleep(self._settings.look_s)
            await self._look()

    async def _look(self) -> None:
        async with self._looking:
            if 0 <= trio.current_time() - self._looked_s < FRESH_S:
                return
            survey = await self._ask_nvml()
            self._looked_s = trio.current_time()
            self._take(survey, self._looked_s)

    async def _ask_nvml(self) -> GpuSurvey:
        if not self._one_call.available_tokens:
            return GpuSurvey((), "NVML: an earlier call has not returned yet")
        with trio.move_on_after(LOOK_S_MAX):
            try:
                with thread_refusals():
                    return await trio.to_thread.run_sync(
                        self._survey, abandon_on_cancel=True, limiter=self._one_call
                    )
            except OSError as error:
                return GpuSurvey((), f"NVML cannot be asked: {error.strerror}")
        return GpuSurvey((), f"NVML: no answer within {LOOK_S_MAX:g} s")

    def _take(self, survey: GpuSurvey, now_s: float) -> None:
        for worker_id, worker in self._workers.items():
            if worker.ready is not None:
                self._ledger(worker_id).loaded(worker_id)
        self._seen, self._problem = survey, survey.problem
        for ledger in self._ledgers.values():
            ledger.look(self._found(ledger, survey))
            for entry in ledger.settle(now_s, self._settings.release_timeout_s):
                self._log.warning(
                    "vram_not_released", worker=entry.worker_id, gpu=ledger.index, pid=entry.pid,
                    bytes=entry.booked_bytes,
                    remedy="see with nvidia-smi who holds it; workers are started again as far as"
                    " memory is free",
                )  # fmt: skip
            self._tell(ledger)

    def _found(self, ledger: Ledger, survey: GpuSurvey) -> Gpu | None:
        """By its serial name: when one is lost, the others may be counted anew."""
        uuid = self._names[ledger.index][1]
        for gpu in survey.gpus:
            if (gpu.uuid == uuid) if uuid and gpu.uuid else (gpu.index == ledger.index):
                return gpu
        return None

    def _ledger(self, worker_id: str) -> Ledger:
        return self._ledgers[self._places[worker_id].gpu]

    # --- what is told, once for each time that it begins or ends

    def _tell(self, ledger: Ledger) -> None:
        self._tell_once(
            ledger, "nvml", self._silence(ledger), "gpu_unknown", "gpu_known",
            effect="the books alone decide who may be started there",
        )  # fmt: skip
        heat = ledger.heat() if ledger.is_hot else ""
        self._tell_once(ledger, "heat", heat, "gpu_hot", "gpu_cool")
        blind = ledger.gpu is not None and ledger.tells_processes is False
        self._tell_once(
            ledger, "processes",
            "NVML does not tell what our processes hold" if blind else "",
            "gpu_processes_unknown", "gpu_processes_known",
            effect="memory is taken for returned when as much is free again",
        )  # fmt: skip

    def _tell_once(  # noqa: PLR0913, PLR0917  # one for each word of the line
        self, ledger: Ledger, topic: str, problem: str, begins: str, ends: str, effect: str = ""
    ) -> None:
        key = (ledger.index, topic)
        was = self._told.get(key, "")
        self._told[key] = problem
        if problem and not was:
            fields = {"effect": effect} if effect else {}
            self._log.warning(begins, gpu=ledger.index, problem=problem, **fields)
        elif was and not problem:
            self._log.info(ends, gpu=ledger.index)

    def _silence(self, ledger: Ledger) -> str:
        if ledger.gpu is not None:
            return ""
        return self._problem or f"NVML shows no GPU {ledger.index}, or figures that cannot be"

    def _view(self, ledger: Ledger) -> GpuView:
        gpu = ledger.gpu
        quarantine = self._quarantine(ledger.index)
        state, problem = "ok", ""
        if quarantine:
            state, problem = "quarantined", quarantine
        elif gpu is None:
            state, problem = "unknown", self._silence(ledger)
        elif ledger.is_hot:
            state, problem = "hot", ledger.heat()
        by = "books" if gpu is None else "process" if ledger.tells_processes else "free_memory"
        return GpuView(
            index=ledger.index,
            name=self._names[ledger.index][0],
            state=state,
            problem=problem,
            measured_by=by,
            memory_total_bytes=ledger.total_bytes,
            memory_free_bytes=None if gpu is None else gpu.memory_free_bytes,
            reserved_bytes=ledger.booked_bytes,
            temperature_c=None if gpu is None else gpu.temperature_c,
            temperature_limit_c=ledger.temperature_limit_c,
        )
