"""One simulation: the supervisor's own parts on a simulated box, and what happens to them."""

import math
from typing import Final, cast

import trio

from rbee.config import ModelConfig
from rbee.errors import ErrorCode, RequestError
from rbee.supervisor.api.generation import Surroundings as FaceSurroundings
from rbee.supervisor.api.open_requests import OpenRequests
from rbee.supervisor.crashes import Crashes
from rbee.supervisor.custody import Custody
from rbee.supervisor.launch import Launcher, Spawn
from rbee.supervisor.lifecycle import WorkerState
from rbee.supervisor.liveness import BEAT_GRACE_S
from rbee.supervisor.operations import Operations
from rbee.supervisor.pool import Pool
from rbee.supervisor.slot import Slot, Surroundings, keep_filled
from rbee.supervisor.worker import Worker, WorkerExit, WorkerPlan
from rbee.transport.link import LinkFactory
from rbee.wire import Generate, Welcome
from tests.simulation.box import Box, SimProcess
from tests.simulation.client import Client
from tests.simulation.oracle import Script
from tests.simulation.pool_watch import PoolWatch
from tests.simulation.request_watch import RequestWatch
from tests.simulation.scenario import (
    CALM_S,
    HEAL_S,
    Act,
    Deed,
    ModelPlan,
    Scenario,
    chance,
)
from tests.simulation.sim_clock import SimClock
from tests.simulation.sim_gpu import Quarantine, SimNvml, WatchedGate
from tests.simulation.sim_worker import SPREAD_MAX
from tests.simulation.slot_watch import SlotWatch, WatchedSlot
from tests.simulation.trace import Trace

# As `supervisor.main` has it.
LOOK_EVERY_S: Final = 0.05

# From a verdict to the kill: the evidence; and how much later than it may the judge wakes.
FOUND_S: Final = 0.5

QUEUE_TOKENS_MAX: Final = 16_000_000

# What the end of the workers may take beside the ladder: the reaping of strays, and the kernel.
REAP_S_MAX: Final = 2.5
UNKILLABLE_S_MAX: Final = 1.0

# When all have ended that SIGKILL did not end.
UNKILLABLE_ENDS_S: Final = 60.0


class World:
    """All parts of one simulation."""

    def __init__(self, scenario: Scenario, trace: Trace, clock: SimClock) -> None:
        self.scenario: Final = scenario
        self.trace: Final = trace
        self.slot_watch: Final = SlotWatch(scenario, self.trace)
        self.slots: Final[list[Slot]] = [
            WatchedSlot(_plan(slot, model, scenario), self.slot_watch)
            for model in scenario.models
            for slot in model.slots
        ]
        self.pool: Final = Pool(
            self.slots, backlog=(scenario.queue_max, QUEUE_TOKENS_MAX), limits=scenario.worker,
            clock=trio.current_time, log=self.trace,
        )  # fmt: skip
        self.watch: Final = _Deliveries(self.pool, self.slots, self.trace, self)
        self.requests: Final = RequestWatch(scenario, self.pool, self.slots, self.watch, self.trace)
        self.box: Final = Box(scenario, self, clock)
        self.open_requests: Final = OpenRequests()
        self.operations: Final = Operations(
            self.slots, self.pool, cast(Crashes, None), trio.current_time, 0
        )
        self.drain_asked: Final = trio.Event()
        self.hurry: Final = trio.Event()
        self.clients = 0
        self.is_closed = False  # the faces are
        self.slept_s = 0.0  # by the supervisor, in all
        self.sleeps: Final[list[tuple[float, float]]] = []  # until when, and for how long
        self.trace.on_log = self.slot_watch.heard
        self.nvml: Final = None if scenario.gpu is None else SimNvml(
            scenario.gpu, self.box.processes
        )  # fmt: skip
        self.quarantine: Final = Quarantine()
        self.gate: Final = None if self.nvml is None else WatchedGate(
            scenario, self.nvml, self.quarantine, self.trace
        )  # fmt: skip
        self._surroundings: Final = Surroundings(
            launch=Launcher(
                cast(LinkFactory, self.box.links), scenario.worker, self.hurry, self.trace,
                spawn=cast(Spawn, self.box.spawn), custody=self._custody,
            ),
            worker=scenario.worker,
            restart=scenario.restart,
            delivery=self.watch,
            chance=chance(scenario.seed, "supervisor"),
            log=self.trace,
            evidence=self.slot_watch,
            gate=self.gate,
        )  # fmt: skip

    # --- for the box (`box.Watcher`)

    @property
    def scripts(self) -> dict[str, Script]:
        return self.requests.scripts

    def note(self, text: str) -> None:
        self.trace.note(text)

    def violation(self, text: str) -> None:
        self.trace.violation(text)

    def generated(self, message: Generate) -> None:
        self.requests.generated(message)

    def slept_since(self, at_s: float) -> bool:
        return any(woken_s >= at_s for woken_s, _ in self.sleeps)

    def may_be_ended(self, slot_id: str) -> bool:
        """Whether a healthy worker there may be sent a signal.

        It was asked to end, and cannot hear it, or the box stood still while it had time to.
        """
        worker = self._slot(slot_id).worker
        if self.hurry.is_set():
            return True
        if worker is None or not self._is_to_end(worker):
            return False
        return worker.ready is None or self.slept_since(
            trio.current_time() - self.scenario.worker.kill_after_s
        )

    def _is_to_end(self, worker: Worker) -> bool:
        return worker._was_asked or self.drain_asked.is_set()

    def process_ended(self, process: SimProcess) -> None:
        if process.worker.poisoned_by and not process.was_struck:
            self.requests.poisoned(process.worker.poisoned_by)
        if self.nvml is not None:
            self.nvml.ended(process)
        self._check_found(process)

    def process_left(self, process: SimProcess) -> None:
        self.quarantine.survivors.append(process)

    def _check_found(self, process: SimProcess) -> None:
        """What hung was found in time."""
        worker, limits = process.worker, self.scenario.worker
        silent_s = limits.beat_s * limits.beats_missed_max + BEAT_GRACE_S
        starting_s = max(limits.hello_timeout_s, limits.load_stall_s)
        bounds = {
            "hangs": silent_s if self._is_known_ready(process) else starting_s,
            "hangs on a request": limits.step_stall_s_max + 2 * limits.beat_s,
        }
        if worker.broken not in bounds:
            return
        slept_s = sum(lasts_s for woken_s, lasts_s in self.sleeps if woken_s > worker.broken_s)
        took_s = trio.current_time() - worker.broken_s - slept_s
        took_s -= worker.nature.unkillable_s + worker.nature.kill_lag_s
        is_in_time = took_s <= bounds[worker.broken] + FOUND_S
        self.trace.expect(is_in_time, f"{process.slot_id} {worker.broken} for {took_s:.3f} s")

    def _is_known_ready(self, process: SimProcess) -> bool:
        """What it said last may not have left it: who was not heard to be ready still loads."""
        worker = self._slot(process.slot_id).worker
        return worker is not None and worker.pid == process.pid and worker.ready is not None

    def _custody(self, slot_id: str) -> Custody:
        self.slot_watch.started(slot_id)
        return cast(Custody, self.box.custody(slot_id))

    def _slot(self, slot_id: str) -> Slot:
        return next(slot for slot in self.slots if slot.slot_id == slot_id)

    # --- the tree of tasks

    async def run(self) -> None:
        begun_s = trio.current_time()
        with trio.CancelScope() as all_of_it:
            self.trace.on_violation = lambda: all_of_it.cancel(reason="an invariant does not hold")
            self.box.clock.on_idle = lambda: self.violation("all wait, and nothing is due")
            async with trio.open_nursery() as outside:
                self.box.start = outside.start_soon
                if self.gate is not None:
                    outside.start_soon(self.gate.watch)
                outside.start_soon(self._make_things_happen, begun_s)
                async with trio.open_nursery() as faces:
                    faces.start_soon(self._make_requests, begun_s)
                    faces.start_soon(self._ask_for_the_end, begun_s)
                    await self._supervise()
                self._check_shut()
                if any(not each.worker.has_ended for each in self.box.processes):
                    await trio.sleep(UNKILLABLE_ENDS_S)
                outside.cancel_scope.cancel(reason="all is over")
            self._check_end()

    async def _supervise(self) -> None:
        """As `supervisor.main` does."""
        async with trio.open_nursery() as workers:
            for slot in self.slots:
                workers.start_soon(keep_filled, slot, self._surroundings)
            await self.drain_asked.wait()
            begun_s, slept_s = trio.current_time(), self.slept_s
            self.pool.drain()
            with trio.move_on_after(self.scenario.drain_s):
                while self.pool.open_requests and not self.hurry.is_set():
                    await trio.sleep(LOOK_EVERY_S)
            message = "the server is shutting down"
            self.pool.fail_all(RequestError(ErrorCode.DRAINING, message, retry_after_s=5.0))
            self.is_closed = True
            took_s = trio.current_time() - begun_s - (self.slept_s - slept_s)
            self.trace.expect(took_s <= self.scenario.drain_s + 0.1, f"draining took {took_s} s")
            begun_s, slept_s = trio.current_time(), self.slept_s
            workers.cancel_scope.cancel(reason="shutdown")
        took_s = trio.current_time() - begun_s - (self.slept_s - slept_s)
        self._check_ladder(took_s)

    def _check_ladder(self, took_s: float) -> None:
        limit_s = self.scenario.worker.kill_after_s + REAP_S_MAX
        if any(each.worker.nature.unkillable_s for each in self.box.processes):
            limit_s += UNKILLABLE_S_MAX
        self.trace.note(f"the workers ended within {took_s:.3f} s")
        self.trace.expect(took_s <= limit_s, f"the workers took {took_s:.3f} s to end")

    async def _make_requests(self, begun_s: float) -> None:
        around = FaceSurroundings(self.pool, self.open_requests)
        scenario = self.scenario
        goes_s = poison_goes_s = math.inf
        if scenario.ends_calm:
            goes_s = begun_s + scenario.shutdown_s - CALM_S - 1.0
            poison_goes_s = begun_s + scenario.stormy_s
        async with trio.open_nursery() as nursery:
            for arrival in scenario.arrivals:
                await trio.sleep_until(begun_s + arrival.at_s)
                if self.is_closed:
                    return
                self.clients += 1
                is_poison = any(script.poison for script in arrival.scripts)
                client = Client(
                    arrival, around, self.requests, poison_goes_s if is_poison else goes_s
                )
                nursery.start_soon(client.run)
                self.watch.check()

    async def _ask_for_the_end(self, begun_s: float) -> None:
        scenario = self.scenario
        if scenario.ends_calm:
            await trio.sleep_until(begun_s + scenario.stormy_s)
            self._calm_down()
            await trio.sleep(HEAL_S - 1.0)
            self._check_healed()
        await trio.sleep_until(begun_s + scenario.shutdown_s)
        self.drain_asked.set()
        if scenario.hurry_after_s is not None:
            await trio.sleep(scenario.hurry_after_s)
            self.hurry.set()

    def _calm_down(self) -> None:
        self.note("the weather is calm")
        if self.nvml is not None:
            self.nvml.is_calm = True
        self.box.heal()
        for slot in self.slots:
            is_wanted = self.slot_watch.of(slot.slot_id).wants_worker
            self._operate("reset" if is_wanted else "restart", slot)

    def _check_healed(self) -> None:
        now_s, are_all_up = trio.current_time(), True
        for slot in self.slots:
            is_up = slot.worker is not None and slot.worker.ready is not None
            # Who was asked to end may have had long answers to finish; its successor loads.
            loads_s = max(HEAL_S / 2, self._loads_s_max(slot.model.name))
            has_time = slot.worker is not None and slot.worker.started_s > now_s - loads_s
            told = f"{slot.slot_id} is {slot.state.value} in calm weather"
            self.trace.expect(is_up or has_time, told)
            # Who was asked to end may have a long answer to finish yet.
            is_leaving = slot.worker is not None and slot.worker.state is WorkerState.DRAINING
            are_all_up = are_all_up and is_up and not is_leaving
        is_told = not are_all_up or self.operations.readiness() == "ok"
        self.trace.expect(is_told, "not ready in calm weather")

    def _loads_s_max(self, model: str) -> float:
        """How long a healthy worker may take until it is ready."""
        [plan] = (each for each in self.scenario.models if each.name == model)
        return SPREAD_MAX * (plan.import_s + plan.load_s)

    # --- what happens from outside

    async def _make_things_happen(self, begun_s: float) -> None:
        for act in self.scenario.acts:
            await trio.sleep_until(begun_s + act.at_s)
            if trio.current_time() >= begun_s + self.scenario.stormy_s:
                return
            if self.drain_asked.is_set() and act.deed in (Deed.RESTART, Deed.STOP, Deed.RESET):
                continue
            self.note(f"{act.deed.value} {act.slot} {act.lasts_s:.3f}")
            self._do(act)
            self.watch.check()
            for slot in self.slots:
                self.slot_watch.look_at_breaker(slot)

    def _do(self, act: Act) -> None:
        match act.deed:
            case Deed.RESTART | Deed.STOP | Deed.RESET:
                self._operate(act.deed.value, self._slot(act.slot))
            case Deed.KILL:
                self.box.kill(act.slot, 9)
            case Deed.TERM:
                self.box.kill(act.slot, 15)
            case Deed.SUSPEND:
                self.box.suspend_supervisor(act.lasts_s)
                self._woke(act.lasts_s)
            case Deed.FREEZE:
                self.box.freeze(act.lasts_s)
                self._woke(act.lasts_s)

    def _woke(self, lasts_s: float) -> None:
        self.slept_s += lasts_s
        self.slot_watch.slept_s = self.slept_s
        now_s = trio.current_time()
        self.sleeps.append((now_s, lasts_s))
        self.requests.woken_s = self.slot_watch.woken_s = now_s
        self.requests.slept_from_s = now_s - lasts_s

    def _operate(self, deed: str, slot: Slot) -> None:
        self.slot_watch.asked(slot.slot_id, deed)
        ask = {
            "restart": self.operations.restart_worker,
            "stop": self.operations.stop_worker,
            "reset": self.operations.reset_worker,
        }
        ask[deed](slot.slot_id)
        self.operations.workers()
        self.operations.breakers()
        self.operations.models()

    # --- the end

    def _check_shut(self) -> None:
        for process in self.box.processes:
            gone = process.worker.has_ended and process.is_reaped and not process.strays
            is_right = gone or process.is_left or process.worker.nature.unkillable_s > 0
            self.trace.expect(is_right, f"pid {process.pid} of {process.slot_id} is left")
        for link in self.box.links.opened.values():
            self.trace.expect(link.is_closed, "a link is left open")
        for custody in self.box.custodies:
            self.trace.expect(custody.is_released, "a custody was not released")

    def _check_end(self) -> None:
        self.watch.check_empty()
        self.trace.expect(not self.open_requests._by_id, "a request can still be cancelled")
        ended = sum(self.requests.outcomes.values())
        self.trace.expect(ended == self.clients, f"{ended} of {self.clients} requests have ended")


class _Deliveries(PoolWatch):
    """Tells the watch of slots how a worker ended, before its slot hears it."""

    def __init__(self, pool: Pool, slots: list[Slot], trace: Trace, world: World) -> None:
        super().__init__(pool, slots, trace)
        self._world = world

    def worker_gone(self, worker: Worker, ending: WorkerExit) -> None:
        self._world.slot_watch.worker_ended(worker.worker_id, ending)
        super().worker_gone(worker, ending)


def _plan(slot_id: str, model: ModelPlan, scenario: Scenario) -> WorkerPlan:
    config = ModelConfig(ref="synthetic", name=model.name, engine="synthetic")
    return WorkerPlan(slot_id, Welcome(config, "", 1, scenario.worker.beat_s))
