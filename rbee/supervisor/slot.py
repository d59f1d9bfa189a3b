"""A slot: the place of one worker, kept filled."""

import enum
import random
from dataclasses import dataclass, replace
from typing import Final, Protocol

import trio

from rbee.config import RestartConfig, WorkerConfig
from rbee.logs import Log
from rbee.supervisor.child import Launch
from rbee.supervisor.liveness import Pace
from rbee.supervisor.restart import Ending, judge
from rbee.supervisor.worker import Worker, WorkerExit, WorkerPlan
from rbee.supervisor.worker_life import Delivery, run_worker


class SlotState(enum.Enum):
    EMPTY = "empty"  # before its first worker, and for a moment between two
    FILLED = "filled"
    WAITING = "waiting"  # for the back-off to pass
    FAILED = "failed"  # until an operator resets it
    STOPPED = "stopped"  # an operator wants it so


class SlotDelivery(Delivery, Protocol):
    """Who hears of a slot and of the workers in it."""

    def slot_failed(self, slot: "Slot") -> None:
        """No worker will stand here until an operator asks for one."""
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
        self.failures = 0  # in a row
        self.restarts = 0  # since the supervisor started
        self.last_failure = ""
        self.refill_s: float | None = None  # while waiting: when
        self.was_ready = False  # once, at least
        self.pace = Pace()  # of its workers so far
        self._wants_worker = True
        self._asked = trio.Event()  # the operator said something

    def restart(self) -> None:
        """Replace the worker once it has finished what it has; fill the slot if it is empty."""
        self._wants_worker = True
        self._ask()

    def stop(self) -> None:
        """Let the worker finish what it has, and keep the slot empty."""
        self._wants_worker = False
        self._ask()

    def _hold(self, worker: Worker) -> None:
        self.worker = worker
        self.state = SlotState.FILLED
        if not self._wants_worker:  # the operator changed his mind while it was being started
            worker.drain()

    def _worker_gone(self, ending: WorkerExit) -> None:
        self.was_ready = self.was_ready or ending.ready_for_s is not None
        if self.worker is not None:
            self.pace = self.worker.pace
        self.worker = None
        self.state = SlotState.EMPTY

    def _ask(self) -> None:
        self._asked.set()
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


async def keep_filled(slot: Slot, around: Surroundings) -> None:
    """Keep a worker in ``slot`` until cancelled. Cancelling stops it, by the ladder."""
    delivery, log = around.delivery, around.log
    while True:
        if not slot._wants_worker:
            slot.state = SlotState.STOPPED
            delivery.slot_failed(slot)
            await _wait_asked(slot)
            continue
        plan = replace(slot.plan, pace=slot.pace)
        ending = await run_worker(around.launch, plan, around.worker, delivery, slot._hold)
        slot._worker_gone(ending)
        verdict = judge(
            Ending(ending.was_asked, ending.exit_code, ending.ready_for_s),
            slot.failures,
            around.restart,
            around.chance.random(),
        )
        slot.failures = verdict.failures
        if ending.was_asked:
            log.info("worker_gone", worker=slot.slot_id, how=str(ending))
        else:
            slot.last_failure = str(ending)
            log.error(
                "worker_failed", worker=slot.slot_id, how=str(ending), failures=slot.failures,
                state=ending.last_state.value, restart_in_s=verdict.delay_s,
            )  # fmt: skip
        if verdict.delay_s is None:
            slot.state = SlotState.FAILED
            log.error(
                "slot_failed", slot=slot.slot_id, reason=verdict.reason, last=slot.last_failure,
                remedy=f"mend it, then: rbee workers restart {slot.slot_id}",
            )  # fmt: skip
            delivery.slot_failed(slot)
            await _wait_asked(slot)
            slot.failures = 0
        elif verdict.delay_s > 0:
            await _wait_backoff(slot, verdict.delay_s)
        slot.restarts += 1


async def _wait_asked(slot: Slot) -> None:
    slot._asked = trio.Event()
    await slot._asked.wait()


async def _wait_backoff(slot: Slot, delay_s: float) -> None:
    """Wait ``delay_s``, or until an operator asks for something."""
    slot.state = SlotState.WAITING
    slot.refill_s = trio.current_time() + delay_s
    with trio.move_on_after(delay_s):
        await _wait_asked(slot)
    slot.refill_s = None
