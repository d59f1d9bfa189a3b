"""A slot: the place of one worker, kept filled."""

import enum
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol

import trio
from msgspec import structs

from rbee.config import RestartConfig, WorkerConfig
from rbee.logs import Log
from rbee.supervisor.audited import Failed, Lives
from rbee.supervisor.breaker import Breaker, BreakerState
from rbee.supervisor.child import Launch
from rbee.supervisor.ledger import Answer, Granted, Refused, Wait
from rbee.supervisor.liveness import FATAL, Pace
from rbee.supervisor.restart import Cause, Ending, Failure, Verdict
from rbee.supervisor.worker import Worker, WorkerExit, WorkerPlan
from rbee.supervisor.worker_life import Delivery, Evidence, not_started, run_worker

# How soon a worker that was not let onto its GPU asks again: at first, growing, and at most.
ASK_AGAIN_S_MIN: Final = 0.1
ASK_AGAIN_GROWTH: Final = 1.3
ASK_AGAIN_S_MAX: Final = 1.0


class SlotState(enum.Enum):
    EMPTY = "empty"  # before its first worker, and for a moment between two
    FILLED = "filled"
    WAITING = "waiting"  # for the back-off to pass, or for its GPU
    FAILED = "failed"  # until an operator resets it, or the cool-down is over
    STOPPED = "stopped"  # an operator wants it so


class SlotDelivery(Delivery, Protocol):
    """Who hears of a slot and of the workers in it."""

    def slot_failed(self, slot: "Slot") -> None:
        """No worker will stand here until an operator asks for one, or the cool-down is over."""
        ...

    def pardons(self, slot_id: str) -> int:
        """How many ends of workers here were a request's doing, as far as is known by now."""
        ...


class Gate(Protocol):
    """Who lets workers onto their GPUs."""

    @property
    def room_timeout_s(self) -> float: ...

    async def ask(self, worker_id: str) -> Answer:
        """Whether it may be started now. Who was granted it says `gone` in the end."""
        ...

    def born(self, worker_id: str, worker: Worker) -> None: ...

    def gone(self, worker_id: str) -> None: ...


class SlotEvidence(Evidence, Protocol):
    """Who reports why a worker failed."""

    def report(
        self, plan: WorkerPlan, worker: Worker | None, ending: WorkerExit, verdict: Verdict
    ) -> str:
        """Gather what is known of it; None: it was never started. Returns: the report's id."""
        ...

    async def write(self, crash_id: str) -> None:
        """Put a report on the disk. Bounds itself to a second or so."""
        ...

    def forget(self, worker: Worker) -> None:
        """It ended as it was asked to."""
        ...


class Slot:
    """What the rest of the supervisor may see of a slot, and ask of it.

    `keep_filled` is the only writer, but for the operator's wish.
    """

    def __init__(self, plan: WorkerPlan) -> None:
        self.slot_id: Final = plan.worker_id
        self.model: Final = plan.welcome.model
        self.plan: Final = plan
        self.state = SlotState.EMPTY
        self.worker: Worker | None = None
        self.restarts = 0  # how often it was filled again since the supervisor started
        self.last_failure = ""
        self.refill_s: float | None = None  # while waiting, or until the trial: when
        self.waits_for = ""  # why it is not let onto its GPU yet
        self.was_ready = False  # once, at least
        self.pace = Pace()  # of its workers so far
        self._breaker = Breaker()
        self._was_filled = False
        self._pardons = 0  # that were taken into account
        self._wants_worker = True
        self._asked = trio.Event()  # the operator said something
        self._is_pardoned = False  # no: it was a verdict on a request

    @property
    def failure(self) -> Failure | None:
        """The kind of the last failure; None: there was none, or it was reset."""
        return self._breaker.failure

    def failures(self, now_s: float) -> int:
        """In a row; good service makes them forgotten."""
        return self._breaker.failures_left(self._ready_for_s(now_s))

    def breaker(self, now_s: float) -> BreakerState:
        return self._breaker.state(self._ready_for_s(now_s))

    def _ready_for_s(self, now_s: float) -> float | None:
        return None if self.worker is None else self.worker.ready_for_s(now_s)

    @property
    def failed_for(self) -> str:
        """Why it stays empty."""
        return self._breaker.reason

    @property
    def is_over(self) -> bool:
        """Whether it is empty, and stays so by itself. Not from the word on that fills it again."""
        is_empty = self.state in (SlotState.FAILED, SlotState.STOPPED)
        return is_empty and not (self._wants_worker and self._asked.is_set())

    @property
    def is_hopeless(self) -> bool:
        """Whether it stays empty until an operator acts who did not want it so."""
        return self.state is SlotState.FAILED and self._breaker.trial_after_s is None

    def restart(self) -> None:
        """Replace the worker once it has finished what it has; fill the slot if it is empty."""
        self._wants_worker = True
        self._ask()

    def stop(self) -> None:
        """Let the worker finish what it has, and keep the slot empty."""
        self._wants_worker = False
        self._ask()

    def reset(self) -> None:
        """Forget its failures; fill it now if it waits or has failed. A worker goes on."""
        self._breaker.reset()
        if self.worker is None:
            self._ask()

    def pardon(self) -> None:
        """Failures of its workers turned out to be a request's doing: `SlotDelivery.pardons`."""
        if self.state is SlotState.FAILED and not self._asked.is_set():
            self._is_pardoned = True
            self._asked.set()

    def _hold(self, worker: Worker) -> None:
        self.worker = worker
        self.state = SlotState.FILLED
        self._asked = trio.Event()  # what was said before is done with it
        self.restarts += self._was_filled
        self._was_filled = True
        if not self._wants_worker:  # the operator changed his mind while it was being started
            worker.drain()

    def _release(self, ending: WorkerExit) -> Worker | None:
        """The worker is gone."""
        worker, self.worker = self.worker, None
        self.state = SlotState.EMPTY
        if ending.was_asked:  # what was said of it is done; else it was ending when it was said
            self._asked = trio.Event()
        self.was_ready = self.was_ready or ending.ready_for_s is not None
        if worker is not None:
            self.pace = worker.pace
        return worker

    def _ask(self) -> None:
        self._asked.set()
        self._is_pardoned = False
        if self.worker is not None:
            self.worker.drain()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every slot needs of its supervisor."""

    launch: Launch
    worker: WorkerConfig
    restart: RestartConfig
    delivery: SlotDelivery
    chance: random.Random
    log: Log
    evidence: SlotEvidence | None = None
    slot_failed: Callable[[Slot], None] = lambda _slot: None
    lives: Lives | None = None  # None: nothing is recorded
    gate: Gate | None = None  # None: no worker needs a GPU


async def keep_filled(slot: Slot, around: Surroundings) -> None:
    """Keep a worker in ``slot`` until cancelled. Cancelling stops it, by the ladder."""
    async with trio.open_nursery() as reports:  # the next worker does not wait for them
        await _refill(slot, around, reports)


async def _refill(slot: Slot, around: Surroundings, reports: trio.Nursery) -> None:
    while True:
        if not slot._wants_worker:
            slot.state = SlotState.STOPPED
            around.delivery.slot_failed(slot)
            await _asked_before(slot, math.inf)
            continue
        slot.state = SlotState.EMPTY
        room = await _wait_room(slot, around)
        if room is None:
            continue
        verdict, gone_s = await _fill_once(slot, around, reports, room)
        if slot._asked.is_set():  # while the failure was reported
            await _asked_before(slot, math.inf)
            slot._breaker.reset()
        elif verdict.delay_s is None:
            await _stay_failed(slot, around, verdict)
        else:
            await _wait_backoff(slot, gone_s + verdict.delay_s)


async def _wait_room(slot: Slot, around: Surroundings) -> Granted | Refused | None:
    """Wait until its worker may be let onto its GPU.

    Returns:
      None: an operator has asked for something else meanwhile.
    """
    if around.gate is None:
        return Granted(None)
    still_since_s: float | None = None  # since then nothing changes by itself
    again_s = ASK_AGAIN_S_MIN
    try:
        while True:
            answer = await around.gate.ask(slot.slot_id)
            if slot._asked.is_set():  # the operator has changed his mind meanwhile
                if isinstance(answer, Granted):
                    around.gate.gone(slot.slot_id)
                slot._asked = trio.Event()
                return None
            if not isinstance(answer, Wait):
                return answer
            now_s = trio.current_time()
            still_since_s = None if answer.may_change else (still_since_s or now_s)
            timeout_s = around.gate.room_timeout_s
            if still_since_s is not None and now_s - still_since_s >= timeout_s:
                return Refused(answer.reason)
            if not slot.waits_for:
                around.log.warning("worker_waits", slot=slot.slot_id, reason=answer.reason)
                slot.state = SlotState.WAITING
            slot.waits_for = answer.reason
            with trio.move_on_after(again_s):
                await slot._asked.wait()
            again_s = min(ASK_AGAIN_S_MAX, again_s * ASK_AGAIN_GROWTH)
    finally:
        slot.waits_for = ""


async def _fill_once(
    slot: Slot, around: Surroundings, reports: trio.Nursery, room: Granted | Refused
) -> tuple[Verdict, float]:
    """Have one worker in the slot, to its end.

    Returns:
      What is to become of the slot, and when the worker was gone.
    """

    def hold(worker: Worker) -> None:
        if around.gate is not None:
            around.gate.born(slot.slot_id, worker)
        slot._hold(worker)
        if around.lives is not None:
            engine = slot.model.engine
            around.lives.spawned(slot.slot_id, worker.pid, slot.model.name, engine)

    ending = await _run(slot, around, room, hold)
    gone_s = trio.current_time()
    worker = slot._release(ending)
    pardons = around.delivery.pardons(slot.slot_id)
    told = _for_rules(ending, pardons - slot._pardons)
    slot._pardons = pardons
    verdict = slot._breaker.ended(told, around.restart, around.chance.random())
    if verdict.failure is None:
        around.log.info("worker_gone", worker=slot.slot_id, how=str(ending))
        if around.lives is not None and worker is not None:
            around.lives.ended(slot.slot_id, worker.pid, str(ending))
        if around.evidence is not None and worker is not None:
            around.evidence.forget(worker)
        return verdict, gone_s
    slot.last_failure = str(ending)
    around.log.error(
        "worker_failed", worker=slot.slot_id, cause=verdict.failure.cause.value, how=str(ending),
        failures=verdict.failures, state=ending.last_state.value, restart_in_s=verdict.delay_s,
    )  # fmt: skip
    if around.lives is not None:
        pid = worker.pid if worker is not None else None
        verdict_name = ending.verdict.value if ending.verdict in FATAL else ""
        around.lives.failed(slot.slot_id, pid, verdict_name, _failed(ending, verdict))
    if around.evidence is not None:
        crash_id = around.evidence.report(slot.plan, worker, ending, verdict)
        reports.start_soon(around.evidence.write, crash_id)
    return verdict, gone_s


async def _run(
    slot: Slot, around: Surroundings, room: Granted | Refused, hold: Callable[[Worker], None]
) -> WorkerExit:
    if isinstance(room, Refused):
        return not_started(room.reason, cause=f"{Cause.OUT_OF_MEMORY.value}: {room.reason}")
    welcome = structs.replace(slot.plan.welcome, vram_bytes_max=room.bytes_max)
    plan = replace(slot.plan, welcome=welcome, pace=slot.pace)
    try:
        return await run_worker(
            around.launch, plan, around.worker, around.delivery, hold, around.evidence
        )
    finally:
        if around.gate is not None:
            around.gate.gone(slot.slot_id)


def _failed(ending: WorkerExit, verdict: Verdict) -> Failed:
    assert verdict.failure is not None
    return Failed(
        cause=verdict.failure.cause.value,
        how=str(ending),
        exit_code=ending.exit_code,
        signal=ending.signal,
        failures=verdict.failures,
        delay_s=verdict.delay_s,
    )


def _for_rules(ending: WorkerExit, pardons: int) -> Ending:
    return Ending(
        was_asked=ending.was_asked,
        exit_code=ending.exit_code,
        ready_for_s=ending.ready_for_s,
        was_hung=ending.verdict in FATAL,
        was_out_of_memory=ending.cause.startswith(Cause.OUT_OF_MEMORY.value),
        pardons=pardons,
    )


async def _stay_failed(slot: Slot, around: Surroundings, verdict: Verdict) -> None:
    """Keep the slot empty until an operator asks for a worker, or one is to be tried."""
    assert verdict.failure is not None
    trial_after_s = slot._breaker.trial_after_s
    slot.state = SlotState.FAILED
    around.log.error(
        "slot_failed", slot=slot.slot_id, model=slot.model.name, reason=verdict.reason,
        cause=verdict.failure.cause.value, last=slot.last_failure, trial_in_s=trial_after_s,
        remedy=f"{verdict.failure.remedy}; then: rbee workers reset {slot.slot_id}",
    )  # fmt: skip
    until_s = math.inf if trial_after_s is None else trial_after_s + trio.current_time()
    slot.refill_s = None if trial_after_s is None else until_s
    around.delivery.slot_failed(slot)
    around.slot_failed(slot)
    while await _asked_before(slot, until_s):
        if not slot._is_pardoned:
            slot._breaker.reset()
            return
        slot._is_pardoned = False
        pardons, slot._pardons = slot._pardons, around.delivery.pardons(slot.slot_id)
        delay_s = slot._breaker.pardoned(slot._pardons - pardons, around.chance.random())
        if delay_s is not None:
            around.log.warning("slot_pardoned", slot=slot.slot_id, restart_in_s=delay_s)
            await _wait_backoff(slot, trio.current_time() + delay_s)
            return
        around.delivery.slot_failed(slot)  # for who came since the verdict
    slot._breaker.begin_trial()
    around.log.warning("slot_on_trial", slot=slot.slot_id, cause=verdict.failure.cause.value)


async def _wait_backoff(slot: Slot, until_s: float) -> None:
    if until_s > trio.current_time():
        slot.state = SlotState.WAITING
        await _asked_before(slot, until_s)


async def _asked_before(slot: Slot, until_s: float) -> bool:
    """Wait until then, or until an operator asks for something. Of both at once, he counts."""
    slot.refill_s = until_s if until_s < math.inf else None
    with trio.move_on_at(until_s):
        await slot._asked.wait()
    slot.refill_s = None
    if not slot._asked.is_set():
        return False
    slot._asked = trio.Event()
    return True
