"""A GPU that the workers of a simulation share, and what its driver tells of it.

Rule: what workers hold is the truth, and is never more than they were let in with; the driver may
be silent, hang, lie, or not tell whose it is. The supervisor knows nothing but the driver's word.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import trio

from rbee.config import GpuConfig
from rbee.supervisor.demands import GpuPlace
from rbee.supervisor.devices import Gpu, GpuSurvey
from rbee.supervisor.gpu_gate import LOOK_S_MAX, GpuGate
from rbee.supervisor.ledger import Answer, Granted, Stage
from rbee.vram import Demand
from tests.simulation.scenario import GpuPlan, Scenario
from tests.simulation.trace import Trace

# A driver that hangs does so for longer than anybody waits.
HANG_S: Final = 2 * LOOK_S_MAX


class Mood(enum.Enum):
    """What the driver does for a while."""

    WELL = "well"
    SILENT = "silent"
    HANGS = "hangs"
    LIES = "lies"
    HOT = "hot"


@dataclass(slots=True)
class _Late:
    """Memory of a process that has ended, not back yet."""

    until_s: float
    holds: int


class Process(Protocol):
    """What is needed of one of the box."""

    @property
    def pid(self) -> int: ...

    @property
    def slot_id(self) -> str: ...

    @property
    def is_up(self) -> bool:
        """It lives and has been let through its gate."""
        ...

    @property
    def has_ended(self) -> bool: ...

    @property
    def was_up(self) -> bool:
        """It has been let through its gate, at least."""
        ...

    @property
    def is_loaded(self) -> bool: ...


class SimNvml:
    """The driver, and the truth behind it."""

    def __init__(self, plan: GpuPlan, processes: Sequence[Process]) -> None:
        self.plan: Final = plan
        self.is_calm = False
        self.processes: Final = processes
        self._moods = [(at_s, Mood(name)) for at_s, name in plan.faults]
        self._begun_s = trio.current_time()
        self._late: list[_Late] = []

    @property
    def mood(self) -> Mood:
        now_s = trio.current_time() - self._begun_s
        if self.is_calm:
            return Mood.WELL
        return next((mood for at_s, mood in reversed(self._moods) if at_s <= now_s), Mood.WELL)

    @property
    def takes_s(self) -> float:
        """How long a call takes."""
        return HANG_S if self.mood is Mood.HANGS else 0.0

    def holds(self, process: Process) -> int:
        """In truth."""
        return self._had(process) if process.is_up else 0

    def ended(self, process: Process) -> None:
        """What it held comes back later."""
        if process.was_up and self.plan.late_s and not self.is_calm:
            until_s = trio.current_time() + self.plan.late_s
            self._late.append(_Late(until_s, self._had(process)))

    def _had(self, process: Process) -> int:
        return self.plan.holds if process.is_loaded else self.plan.holds // 2

    @property
    def taken(self) -> int:
        """In truth, by whomever."""
        now_s = trio.current_time()
        self._late = [each for each in self._late if each.until_s > now_s and not self.is_calm]
        late = sum(each.holds for each in self._late)
        return late + sum(self.holds(process) for process in self.processes)

    def survey(self) -> GpuSurvey:
        mood, plan = self.mood, self.plan
        if mood is Mood.SILENT:
            return GpuSurvey((), "NVML: driver not loaded")
        free = -1 if mood is Mood.LIES else plan.total - self.taken
        held = {each.pid: self.holds(each) for each in self.processes if each.is_up}
        gpu = Gpu(
            0, "simulated", plan.total, free, temperature_c=95 if mood is Mood.HOT else 50,
            temperature_limit_c=90, held_bytes=held if plan.lists else None,
        )  # fmt: skip
        return GpuSurvey((gpu,), "")


class WatchedGate(GpuGate):
    """Looks at each word of the gate."""

    def __init__(
        self, scenario: Scenario, nvml: SimNvml, quarantine: "Quarantine", trace: Trace
    ) -> None:
        plan = nvml.plan
        demand = Demand(plan.least, plan.most)
        slots = [slot for model in scenario.models for slot in model.slots]
        first = GpuSurvey((Gpu(0, "simulated", plan.total, plan.total),), "")
        super().__init__(
            {slot: GpuPlace(0, demand) for slot in slots}, first, nvml.survey,
            GpuConfig(room_timeout_s=plan.room_timeout_s), trace, quarantine=quarantine.problem,
        )  # fmt: skip
        self._nvml, self._trace, self._plan = nvml, trace, plan

    async def ask(self, worker_id: str) -> Answer:
        answer = await super().ask(worker_id)
        if isinstance(answer, Granted):
            self._check(worker_id)
        return answer

    def _check(self, worker_id: str) -> None:
        [ledger] = self._ledgers.values()
        booked, total = ledger.booked_bytes, self._plan.total
        self._trace.expect(booked <= total, f"{booked} of {total} are reserved")
        self._trace.expect(not ledger.is_hot, f"{worker_id} is let onto a hot GPU")
        if ledger.gpu is None:
            return  # nobody could know
        # By slot: the supervisor has not heard yet of who was just born.
        held = {each.slot_id: self._nvml.holds(each) for each in self._nvml.processes}
        # Who has ended takes no more, though the supervisor may hear of that in the next moment.
        ended = {each.pid for each in self._nvml.processes if each.has_ended}
        coming = sum(
            max(0, entry.booked_bytes - held.get(entry.worker_id, 0))
            for entry in ledger.entries.values()
            if entry.stage is Stage.RESERVED and entry.pid not in ended
        )
        taken = self._nvml.taken
        self._trace.expect(
            taken + coming <= total,
            f"{worker_id} loads: {taken} are taken and {coming} are to come, of {total}",
        )


class Quarantine:
    """Which processes survived SIGKILL, as the supervisor sees it."""

    def __init__(self) -> None:
        self.survivors: list[Process] = []

    def problem(self, gpu: int) -> str:
        self.survivors = [each for each in self.survivors if each.is_up]
        return f"GPU {gpu} is in quarantine" if self.survivors else ""
