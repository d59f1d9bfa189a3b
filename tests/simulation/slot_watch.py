"""Looks at slots: how they move, when they are filled again, and how their breakers move.

It keeps a count of failures of its own, from what ended and not from what the slot says. Where an
operator, or a request that was found guilty, may have changed the count, only bounds are checked.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import trio

from rbee.config import RestartConfig
from rbee.supervisor.breaker import BreakerState
from rbee.supervisor.restart import Cause, Verdict
from rbee.supervisor.slot import Slot, SlotState
from rbee.supervisor.worker import Worker, WorkerExit, WorkerPlan
from tests.simulation.scenario import Scenario, chance
from tests.simulation.trace import Trace

LATE_S: Final = 0.001

# How long a report of a failure may take (`evidence.WRITE_S_MAX`).
REPORT_S_MAX: Final = 1.0

_MOVES: Final = {
    SlotState.EMPTY: {
        SlotState.FILLED, SlotState.WAITING, SlotState.FAILED, SlotState.STOPPED, SlotState.EMPTY,
    },
    SlotState.FILLED: {SlotState.EMPTY},
    SlotState.WAITING: {
        SlotState.FILLED, SlotState.STOPPED, SlotState.EMPTY,
    },
    SlotState.FAILED: {
        SlotState.FILLED, SlotState.STOPPED, SlotState.EMPTY, SlotState.WAITING,
    },
    SlotState.STOPPED: {SlotState.FILLED, SlotState.STOPPED, SlotState.EMPTY},
}  # fmt: skip

_BREAKER_MOVES: Final = {
    (BreakerState.CLOSED, BreakerState.OPEN),
    (BreakerState.OPEN, BreakerState.HALF_OPEN),
    (BreakerState.OPEN, BreakerState.CLOSED),
    (BreakerState.HALF_OPEN, BreakerState.OPEN),
    (BreakerState.HALF_OPEN, BreakerState.CLOSED),
}


class WatchedSlot(Slot):
    """A slot whose every move is looked at."""

    def __init__(self, plan: WorkerPlan, watch: "SlotWatch") -> None:
        self._watch = watch
        self._kept_state = SlotState.EMPTY
        super().__init__(plan)

    @property
    def state(self) -> SlotState:
        return self._kept_state

    @state.setter
    def state(self, state: SlotState) -> None:
        before, self._kept_state = self._kept_state, state
        self._watch.moved(self, before, state)


@dataclass
class History:
    """What is known of one slot."""

    failures: int = 0  # in a row, as this file counts them
    is_exact: bool = True  # False: an operator or a verdict may have changed the slot's count
    breaker: BreakerState = BreakerState.CLOSED
    due_s: float | None = None  # the next start
    opened_s: float = 0.0
    wants_worker: bool = True
    is_ordered: bool = False  # something, since its last worker ended
    asked_s: float = 0.0  # when an operator last asked for something, as `_awake_s` has it
    ended: WorkerExit | None = None
    gone_s: float = 0.0
    delays: dict[int, list[float]] = field(default_factory=dict)


class SlotWatch:
    """Implements `slot.SlotEvidence`, and hears the log."""

    def __init__(self, scenario: Scenario, trace: Trace) -> None:
        self._histories: Final[dict[str, History]] = {}
        self._restart: Final[RestartConfig] = scenario.restart
        self._has_gpu: Final = scenario.gpu is not None
        self._trace = trace
        self._own = chance(scenario.seed, "evidence")
        self.woken_s = -1.0
        self.slept_s = 0.0  # in all
        self.restarts = 0

    def of(self, slot_id: str) -> History:
        return self._histories.setdefault(slot_id, History())

    # --- how slots move

    def moved(self, slot: Slot, before: SlotState, after: SlotState) -> None:
        self._trace.note(f"{slot.slot_id} {before.value} -> {after.value}")
        is_legal = after in _MOVES[before]
        self._trace.expect(is_legal, f"{slot.slot_id} moves {before.value} -> {after.value}")
        # Between the worker's end and the verdict on it, with no await, nobody else can look.
        is_being_judged = before is SlotState.FILLED
        if hasattr(slot, "_breaker") and not is_being_judged:
            self.look_at_breaker(slot)

    def look_at_breaker(self, slot: Slot) -> None:
        history, now_s = self.of(slot.slot_id), trio.current_time()
        before, after = history.breaker, slot.breaker(now_s)
        if before is after:
            return
        history.breaker = after
        told = f"the breaker of {slot.slot_id}: {before.value} -> {after.value}"
        self._trace.note(told)
        self._trace.expect((before, after) in _BREAKER_MOVES, told)
        if after is BreakerState.OPEN:
            history.opened_s = now_s
        if after is BreakerState.HALF_OPEN:
            cooldown_s = self._restart.cooldown_s
            waited_s = now_s - history.opened_s
            is_right = cooldown_s > 0 and waited_s >= cooldown_s - LATE_S
            self._trace.expect(is_right, f"{told} after {waited_s:.3f} s")

    # --- when they are filled

    def started(self, slot_id: str) -> None:
        """A process is about to be started in it."""
        history, now_s = self.of(slot_id), trio.current_time()
        # Who changes his mind while it is being started has it drained as soon as it is there.
        is_wanted = history.wants_worker or self._awake_s() <= history.asked_s + LATE_S
        self._trace.expect(is_wanted, f"{slot_id} is filled, and was to be empty")
        if history.due_s is None:
            return
        early_s, late_s = history.due_s - now_s, now_s - history.due_s
        self._trace.expect(early_s <= LATE_S, f"{slot_id} is filled {early_s:.3f} s early")
        if self.woken_s < history.gone_s and not self._has_gpu:  # it waits for the GPU, too
            self._trace.expect(late_s <= LATE_S, f"{slot_id} is filled {late_s:.3f} s late")
        history.due_s = None

    def asked(self, slot_id: str, deed: str) -> None:
        """An operator asked something of it."""
        history = self.of(slot_id)
        history.due_s, history.is_exact = None, False
        history.asked_s = self._awake_s()
        history.is_ordered = True
        if deed == "reset":
            history.failures = 0
        else:
            history.wants_worker = deed == "restart"

    def _awake_s(self) -> float:
        """A clock that stands still while the supervisor does."""
        return trio.current_time() - self.slept_s

    def heard(self, event: str, fields: dict[str, Any]) -> None:
        if event == "worker_gone":
            self._clean(fields["worker"])
        elif event == "worker_failed":
            self._failed(fields["worker"], fields)
        elif event == "request_quarantined":
            for history in self._histories.values():  # an earlier crash of each may be its doing
                history.is_exact = False
        elif event == "slot_pardoned":
            history = self.of(fields["slot"])
            history.due_s = trio.current_time() + fields["restart_in_s"]
            history.gone_s = trio.current_time()
        elif event == "slot_on_trial":
            self.of(fields["slot"]).failures = 0

    def worker_ended(self, slot_id: str, ending: WorkerExit) -> None:
        """Before the slot judges it."""
        self.of(slot_id).ended = ending

    def _clean(self, slot_id: str) -> None:
        history = self.of(slot_id)
        ending, history.ended = history.ended, None
        is_asked = ending is not None and ending.was_asked
        self._trace.expect(is_asked, f"the end of {slot_id} is no failure, and nobody asked")
        history.failures, history.is_exact, history.is_ordered = 0, True, False

    def _failed(self, slot_id: str, fields: dict[str, Any]) -> None:
        history, limits = self.of(slot_id), self._restart
        ending, history.ended = history.ended, None
        history.gone_s = trio.current_time()
        if ending is not None:
            self._trace.expect(not ending.was_asked, f"{slot_id} failed, and was asked to end")
            if ending.ready_for_s is not None and ending.ready_for_s >= limits.forget_after_s:
                history.failures = 0
        history.failures += 1
        told, delay_s = fields["failures"], fields["restart_in_s"]
        self._trace.expect(told <= history.failures, f"{slot_id}: {told} failures are too many")
        if history.is_exact:
            is_right = told == history.failures
            self._trace.expect(is_right, f"{slot_id}: {told} failures, not {history.failures}")
        # An order for a worker that was ending, or being started, is done once that has failed.
        is_ordered, history.is_ordered = history.is_ordered, False
        history.failures, history.is_exact = told, not is_ordered
        if delay_s is None or is_ordered:
            history.due_s = None
            return
        self._trace.expect(
            told <= limits.failures_max, f"{slot_id} is filled again after {told} failures"
        )
        self._check_delay(slot_id, history, told, delay_s)

    def _check_delay(self, slot_id: str, history: History, failures: int, delay_s: float) -> None:
        limits = self._restart
        base_s = min(limits.delay_s_max, limits.delay_s_min * 2.0 ** (max(1, failures) - 1))
        spread_s = base_s * limits.jitter
        is_right = base_s - spread_s - LATE_S <= delay_s <= base_s + spread_s + LATE_S
        told = f"{slot_id} waits {delay_s:.3f} s after {failures} failures"
        self._trace.expect(is_right, told)
        self.restarts += 1
        history.due_s = trio.current_time() + delay_s
        drawn = history.delays.setdefault(failures, [])
        drawn.append(delay_s)
        is_spread = len(drawn) < 3 or len(set(drawn)) > 1
        self._trace.expect(is_spread, f"{slot_id} always waits {delay_s:.3f} s")

    # --- evidence

    async def secure(self, worker: Worker) -> None:
        await trio.sleep(self._own.choice((0.0, 0.1, 10.0)))

    def report(
        self, plan: WorkerPlan, worker: Worker | None, ending: WorkerExit, verdict: Verdict
    ) -> str:
        failure = verdict.failure
        assert failure is not None
        self._check_cause(plan.worker_id, ending, failure.cause)
        return plan.worker_id

    async def write(self, crash_id: str) -> None:
        await trio.sleep(self._own.choice((0.0, 0.0, 0.2, REPORT_S_MAX)))

    def forget(self, worker: Worker) -> None:
        return

    def _check_cause(self, slot_id: str, ending: WorkerExit, cause: Cause) -> None:
        is_named = (cause is Cause.OUT_OF_MEMORY) or not ending.cause
        self._trace.expect(is_named, f"{slot_id} ran out of memory: called {cause}")
        was_ready = ending.ready_for_s is not None
        is_right = was_ready or cause not in (Cause.CRASH, Cause.HANG)
        self._trace.expect(is_right, f"{slot_id} never was ready: called {cause}")
