"""The box that the supervisor runs on: processes, links and their custody, all simulated.

The real `Launcher` and `EngineChild` work on these as they do on the system's: the pipes of a
worker are real, and so is what is written into them.

Rule: a slot has one process at a time, and no process is forgotten: both are checked at each spawn
and at the end.
"""

import itertools
import os
import random
from collections.abc import Callable
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals
from typing import Final, Protocol

import msgspec
import trio

from rbee.supervisor.kin import Identity
from rbee.supervisor.limits import Holding, Limits
from tests.simulation.faults import HEALTHY, Character, character
from tests.simulation.scenario import ModelPlan, Scenario, chance
from tests.simulation.sim_clock import Alarm, SimClock
from tests.simulation.sim_link import SimLink
from tests.simulation.sim_worker import Around, SimWorker

SLOT: Final = "SIMULATED_SLOT"
TO_WORKER_MAX: Final = 4096

# The share of starts that fail before there is a process.
NOT_STARTED: Final = 0.1


class Watcher(Around, Protocol):
    """Who looks on, and knows whether somebody was asked to end."""

    def may_be_ended(self, slot_id: str) -> bool:
        """Whether a healthy worker there may be sent a signal."""
        ...

    def slept_since(self, at_s: float) -> bool:
        """Whether the supervisor has slept since then."""
        ...

    def process_ended(self, process: "SimProcess") -> None: ...

    def process_left(self, process: "SimProcess") -> None:
        """Not even SIGKILL has ended it."""
        ...


class SimProcess:
    """What `rbee.supervisor.process.Process` is to the launcher."""

    def __init__(self, box: "Box", slot_id: str, boot_fd: int, nature: Character) -> None:
        self.slot_id: Final = slot_id
        self.pid: Final = box.next_pid()
        self.identity: Final = Identity(self.pid, self.pid)
        self.is_reaped = False
        self.is_left = False  # the supervisor has given it up, and has said so
        self.was_struck = False  # by a signal from outside
        self._was_killed = False  # it may run on for a while; there is no more to be done to it
        self._strays: set[int] | None = None  # None: it has not ended yet
        self._box = box
        self._boot_fd = os.dup(boot_fd)
        self.gate: Final = trio.Event()
        self._ended = trio.Event()
        self._alarm: Final = Alarm(box.clock)
        self.worker: Final = SimWorker(
            box.watcher, box.model_of(slot_id), nature, box.own(f"{slot_id} {self.pid}"),
            self.pid, trio.current_time(), self.poke,
        )  # fmt: skip

    def poke(self) -> None:
        """Something has come for it."""
        self._alarm.ring()

    @property
    def strays(self) -> set[int]:
        """Who outlives it: there from the moment in which it ends, whoever learns of that first."""
        if not self.worker.has_ended:
            return set()
        if self._strays is None:
            count = self.worker.nature.strays if self.worker.is_connected else 0
            self._strays = {self._box.next_pid() for _ in range(count)}
        return self._strays

    # --- for the GPU

    @property
    def is_up(self) -> bool:
        return self.gate.is_set() and not self.worker.has_ended

    @property
    def was_up(self) -> bool:
        return self.worker.is_connected

    @property
    def has_ended(self) -> bool:
        return self.worker.has_ended

    @property
    def is_loaded(self) -> bool:
        return self.worker.is_serving

    # --- for the launcher

    async def wait_ended(self) -> None:
        await self._ended.wait()

    def signal_leader(self, number: Signals) -> None:
        """SIGQUIT: the stacks of its threads, which nobody reads here."""

    def signal_group(self, number: Signals) -> None:
        if not self.worker.has_ended:
            self._judge(number)
            self.worker.deliver_signal(int(number))
            self.poke()

    def reap(self, *, waits: bool = True) -> int | None:
        if self._boot_fd >= 0:
            os.close(self._boot_fd)
            self._boot_fd = -1
        worker = self.worker
        if not worker.has_ended and worker.is_connected:
            return None  # not even SIGKILL ended it
        worker.has_ended = True  # at its gate, or by itself
        self.gate.set()
        self.is_reaped = True
        return worker.exit_code if worker.signal is None else -worker.signal

    def _judge(self, number: Signals) -> None:
        """A healthy worker may be ended only as it was asked to, and once it had its time."""
        watcher = self._box.watcher
        watcher.note(f"{number.name} to {self.slot_id} pid {self.pid}")
        was_killed, self._was_killed = self._was_killed, self._was_killed or number is SIGKILL
        # Of a pause the part before the watch was to wake is not seen, a second at most. Who stood
        # still by itself, and nearly for as long as it may, can be taken for hung for that.
        is_unlucky = watcher.slept_since(self.worker.stood_still_s)
        if self.worker.broken or was_killed or is_unlucky:
            return
        if not watcher.may_be_ended(self.slot_id):
            watcher.violation(f"{self.slot_id} is healthy, and is ended by {number.name}")

    # --- for the box

    async def live(self) -> None:
        await self.gate.wait()
        worker = self.worker
        if not worker.has_ended:
            self._read_boot()
        while not worker.has_ended:
            worker.advance(trio.current_time())
            if not worker.has_ended:
                await self._alarm.wait_until(worker.wake_s)
        self._box.watcher.note(
            f"pid {self.pid} of {self.slot_id} ended: {worker.exit_code} {worker.signal}"
        )
        self._box.watcher.process_ended(self)
        self._ended.set()

    def _read_boot(self) -> None:
        boot = msgspec.json.decode(os.read(self._boot_fd, 65536))
        assert boot["worker_id"] == self.slot_id
        link = self._box.links.opened[boot["link_path"]]
        self.worker.open_gate(bytes.fromhex(boot["secret_hex"]), link)


class SimLinks:
    """What `LinkFactory` is to the launcher."""

    def __init__(self, box: "Box") -> None:
        self.opened: dict[str, SimLink] = {}
        self._box = box
        self._numbers = itertools.count(1)

    def open(self, name: str, peer_pid: int) -> tuple[SimLink, Path]:
        self._box.maybe_fail("a link")
        path = Path(f"/nowhere/{next(self._numbers)}")
        link = SimLink(self._box.link_messages_max, TO_WORKER_MAX)
        self.opened[str(path)] = link
        return link, path


class SimCustody:
    """What `Custody` is to the launcher."""

    holding = Holding("", "", "")
    limits = Limits()

    def __init__(self, box: "Box", slot_id: str) -> None:
        self.environment: Final = {SLOT: slot_id}
        self.is_unsure: Final = False
        self.is_released = False
        self._box = box
        self._slot_id = slot_id
        self._process: SimProcess | None = None

    def born(self, identity: Identity) -> None:
        self._process = self._box.processes[-1]
        assert self._process.identity == identity

    def admit(self, _identity: Identity) -> None:
        assert self._process is not None
        self._box.maybe_fail("custody")
        self._process.gate.set()  # whoever has called opens it before anybody else runs

    def living(self) -> list[int]:
        process = self._process
        if process is None:
            return []
        leader = [] if process.worker.has_ended else [process.pid]
        return [*leader, *process.strays]

    def kill(self) -> None:
        process = self._process
        if process is not None:
            process.strays.clear()
            process.signal_group(SIGKILL)

    def memory_problem(self) -> str:
        return "" if self._process is None else self._process.worker.memory_problem

    def tasks_refused(self) -> int:
        return 0

    def survived(self, pids: list[int]) -> None:
        assert self._process is not None
        self._process.is_left = True
        self._box.watcher.process_left(self._process)

    def release(self) -> list[str]:
        self.is_released = True
        return []


class Box:
    """All of it, and the tasks in which the processes live."""

    def __init__(self, scenario: Scenario, watcher: Watcher, clock: SimClock) -> None:
        self.watcher: Final = watcher
        self.clock: Final = clock
        self.processes: Final[list[SimProcess]] = []
        self.custodies: Final[list[SimCustody]] = []
        self.links: Final = SimLinks(self)
        self.is_stormy = True
        self.start: Callable[..., None] | None = None  # a task
        self._scenario = scenario
        self._pids = itertools.count(1000)
        self._natures = chance(scenario.seed, "natures")
        self._failures = chance(scenario.seed, "failures")
        self._models = {slot: model for model in scenario.models for slot in model.slots}

    @property
    def link_messages_max(self) -> int:
        return min(model.link_messages_max for model in self._scenario.models)

    def next_pid(self) -> int:
        return next(self._pids)

    def own(self, part: str) -> random.Random:
        return chance(self._scenario.seed, part)

    def model_of(self, slot_id: str) -> ModelPlan:
        return self._models[slot_id]

    def custody(self, slot_id: str) -> SimCustody:
        self.watcher.note(f"start in {slot_id}")
        custody = SimCustody(self, slot_id)
        self.custodies.append(custody)
        return custody

    def spawn(
        self, argv: list[str], environment: dict[str, str], descriptors: list[int], output_fd: int
    ) -> SimProcess:
        slot_id = environment[SLOT]
        self.maybe_fail("a process")
        for other in self.living(slot_id):
            self.watcher.violation(f"{slot_id} gets a process beside pid {other.pid}")
        share = self._scenario.fault_share if self.is_stormy else 0.0
        nature = character(self._natures, share) if self.is_stormy else HEALTHY
        process = SimProcess(self, slot_id, descriptors[0], nature)
        self.processes.append(process)
        self.watcher.note(f"pid {process.pid} in {slot_id}: {nature}")
        assert self.start is not None
        self.start(process.live)
        return process

    def maybe_fail(self, what: str) -> None:
        is_likely = self.is_stormy and self._scenario.fault_share > 0
        if is_likely and self._failures.random() < NOT_STARTED / 3:
            raise OSError(11, f"{what} cannot be had")

    def living(self, slot_id: str = "") -> list[SimProcess]:
        """Processes that have not ended or were not reaped, or have left others behind."""
        return [
            each
            for each in self.processes
            if (not slot_id or each.slot_id == slot_id)
            and not each.is_left
            and not (each.worker.has_ended and each.is_reaped and not each.strays)
        ]

    def suspend_supervisor(self, lasts_s: float) -> None:
        """Everybody else lives on for so long."""
        until_s = trio.current_time() + lasts_s
        for each in self.processes:
            if not each.worker.has_ended:
                each.worker.advance(until_s)
                each.poke()
        self.clock.jump(lasts_s)

    def freeze(self, lasts_s: float) -> None:
        """Nobody lives for so long."""
        now_s = trio.current_time()
        for each in self.processes:
            if not each.worker.has_ended:
                each.worker.advance(now_s)
                each.worker.freeze(lasts_s)
                each.poke()
        self.clock.jump(lasts_s)

    def kill(self, slot_id: str, number: int) -> None:
        """Somebody else does."""
        for each in self.living(slot_id):
            if not each.worker.has_ended and each.worker.is_connected:
                self.watcher.note(f"signal {number} from outside to pid {each.pid}")
                each.was_struck = True
                each.worker.deliver_signal(number)
                each.poke()

    def heal(self) -> None:
        """No more faults: what is broken, or would be, ends now."""
        self.is_stormy = False
        for each in self.processes:
            worker = each.worker
            if not worker.has_ended and (worker.broken or worker.nature != HEALTHY):
                worker._ends_s, worker.signal = worker._now_s, int(SIGTERM)
                each.poke()
