"""A worker process without a process: what it says, computes and suffers.

Rule 1: what the supervisor says to it must be legal for the real `WorkerDialogue`.
Rule 2: `broken` says from when on it may be killed. Whoever kills it before kills a healthy one.
"""

import math
import random
from collections.abc import Callable
from signal import SIGKILL, SIGSEGV
from typing import Final, Protocol

from rbee.errors import ErrorCode, ExitCode, RemoteProtocolError
from rbee.wire import (
    Beat,
    Cancel,
    Delta,
    Drain,
    Failed,
    Generate,
    Hello,
    Loading,
    Phase,
    Ready,
    Step,
    Stop,
    Welcome,
    encode,
)
from tests.simulation.faults import Character, Fault, Kind, Stage
from tests.simulation.oracle import Poison, Script, ask_key, tokens
from tests.simulation.scenario import ModelPlan
from tests.simulation.sim_engine import Job, SimEngine
from tests.simulation.sim_link import Frames, SimLink
from tests.simulation.sim_threads import STOP_FRAMES, Threads

# Of what a model's plan says of the import and of each part of the load.
SPREAD_MIN: Final = 0.5
SPREAD_MAX: Final = 1.5


class Around(Protocol):
    """Who looks on."""

    @property
    def scripts(self) -> dict[str, Script]: ...

    def note(self, text: str) -> None: ...

    def violation(self, text: str) -> None: ...

    def generated(self, message: Generate) -> None:
        """It was given a request."""
        ...


class SimWorker(Threads):
    """One process of a worker, from its gate to its end."""

    def __init__(
        self,
        around: Around,
        model: ModelPlan,
        nature: Character,
        own: random.Random,
        pid: int,
        now_s: float,
        poke: Callable[[], None],
    ) -> None:
        super().__init__(nature, own, now_s, model.lag_s, poke)
        self.pid: Final = pid
        self.broken = ""
        self.broken_s = math.inf
        self.stood_still_s = math.inf  # when it last did
        self.poisoned_by = ""  # the ask that ended it
        self.memory_problem = ""
        self._around = around
        self._model = model
        self._engine = SimEngine(model, own)
        self._secret = b""
        self._stage = Stage.IMPORTING
        self._stage_s = now_s
        self._phase = Phase.IMPORTING
        self._marks = 0  # signs of loading that were given
        self._is_draining = self._is_livelocked = self._has_had_fault = False
        self._fault_s = self._fault_due()

    @property
    def is_serving(self) -> bool:
        return self._stage is Stage.SERVING

    def open_gate(self, secret: bytes, link: SimLink) -> None:
        self._secret, self._link = secret, link
        link.on_refused = lambda: self._break("takes nothing")
        self._then(self._own.uniform(SPREAD_MIN, SPREAD_MAX) * self._model.import_s, self._greet)

    # --- what it says

    def _greet(self) -> None:
        assert self._link is not None
        self.is_connected = True
        self._link.connect(self._poke)
        self._say(Hello(self._secret, self.pid, "0"))

    def _beat_message(self) -> Beat:
        engine, jobs = self._engine, self._engine.jobs.values()
        oldest_s = min((each.began_s for each in jobs), default=self._now_s)
        return Beat(
            phase=Phase.DRAINING if self._has_left else self._phase,
            step=engine.steps,
            tokens=engine.tokens,
            requests={each.request_id: each.done for each in jobs},
            oldest_request_age_s=self._now_s - oldest_s,
            rss_bytes=1,
            vram_bytes=0,
            prompt_tokens=engine.prompt_tokens,
            step_s=engine.slowest_step_s,
            read_tokens=engine.read_tokens,
            read_tokens_per_s=engine.read_tokens_per_s,
        )

    def _turn(self) -> None:
        if self._is_behind:
            return
        while self._inbox and self._main_s == math.inf and not self._has_left:
            self._obey(self._inbox.popleft())
        if self._stage is not Stage.SERVING or self._has_left or self._main_s < math.inf:
            return
        for failed in self._engine.expired(self._now_s):
            self._say(failed)
        if self._engine.jobs:
            self._begin_step()
        elif self._is_draining and not self.nature.ignores_stop:
            self._leave("drained", ExitCode.OK)
        else:
            self._phase = Phase.IDLE

    def _obey(self, frames: Frames) -> None:
        try:
            message = self._dialogue.receive(frames)
        except RemoteProtocolError as error:
            self._around.violation(f"the supervisor broke the protocol: {error}")
            return
        match message:
            case Welcome():
                self._beat_every_s, self._beat_s = message.beat_s, self._now_s
                self._enter(Stage.LOADING)
                self._load()
            case Generate():
                self._begin(message)
            case Cancel(request_id=request_id):
                self._engine.jobs.pop(request_id, None)
                if self._dialogue.is_open(request_id):
                    self._say(Failed(request_id, ErrorCode.CANCELLED, "cancelled"))
            case Drain():
                self._is_draining = True
                if self.nature.ignores_stop:
                    self._break("ignores drain")
            case Stop():
                self._leave("stopped", ExitCode.OK)

    def _begin(self, message: Generate) -> None:
        key, resumed = ask_key(message.ask), message.resume_ids
        self._around.generated(message)
        if resumed != tokens(key, 0, len(resumed)):
            self._around.violation(f"{key} goes on behind tokens that it never had")
        script = self._around.scripts[message.ask.prompt or ""]
        failed = self._engine.enqueue(message, script, self._now_s)
        if failed is not None:
            self._say(failed)
        if len(self._engine.jobs) > self._model.batch_size:
            self._around.violation(f"{key} was sent to a worker that is full")

    def _load(self) -> None:
        model = self._model
        if self._inbox and self._inbox[-1] == STOP_FRAMES:
            self._obey(self._inbox.pop())
            return
        self._phase = Phase.LOADING
        if self._marks >= model.load_marks:
            self._enter(Stage.SERVING)
            self._phase = Phase.IDLE
            self._say(Ready("sim", "none", 1 << 20, model.batch_size, (), 0, {}))
            self._turn()
            return
        self._say(Loading(Phase.LOADING, self._marks / model.load_marks))
        self._marks += 1
        mark_s = self._own.uniform(SPREAD_MIN, SPREAD_MAX) * model.load_s / model.load_marks
        self._then(mark_s, self._load)

    def _begin_step(self) -> None:
        self._then(self._engine.begin_step(), self._end_step)
        self._phase = Phase.PREFILL if self._engine.is_reading else Phase.DECODE
        if self._is_draining:
            self._phase = Phase.DRAINING
        fault = self.nature.fault
        is_due = fault is not None and 0 < fault.after_steps <= self._engine.steps
        if is_due and not self._has_had_fault:
            self._fault_now()

    def _end_step(self) -> None:
        if self._is_livelocked:
            self._engine.steps += 1
            self._turn()
            return
        done = self._engine.end_step()
        if done.poisoned_by is not None:
            self._poison(done.poisoned_by)
            return
        if done.deltas:
            self._say(Step(self._engine.steps, done.deltas))
        for failed in done.failed:
            self._say(failed)
        self._turn()

    # --- what it suffers

    def _enter(self, stage: Stage) -> None:
        self._stage, self._stage_s = stage, self._now_s
        self._fault_s = min(self._fault_s, self._fault_due())

    def _fault_due(self) -> float:
        fault = self.nature.fault
        if fault is None or fault.stage is not self._stage or fault.after_steps:
            return math.inf
        return self._stage_s + fault.after_s

    def _break(self, how: str) -> None:
        if not self.broken:
            self.broken, self.broken_s = how, self._now_s
            self._around.note(f"pid {self.pid} is broken: {how}")

    def _fault_now(self) -> None:
        fault = self.nature.fault
        assert fault is not None
        self._fault_s = math.inf
        if self._has_left or self._has_had_fault:
            return
        self._has_had_fault = True
        self._around.note(f"pid {self.pid} fault {fault.kind.value}")
        suffer: dict[Kind, Callable[[], None]] = {
            Kind.CRASH: lambda: self._crash(fault),
            Kind.OUT_OF_MEMORY: self._run_out_of_memory,
            Kind.HANG_MAIN: lambda: self._hang("hangs in its main thread"),
            Kind.HANG_ALL: lambda: self._stand_still(math.inf),
            Kind.HICCUP: lambda: self._stand_still(0.9 * (self._beat_every_s or 1.0)),
            Kind.LIVELOCK: self._turn_in_circles,
            Kind.MUTE: self._fall_silent,
            Kind.GARBAGE: lambda: self._babble([b"\xff no message", b""]),
            Kind.OUT_OF_TURN: lambda: self._babble(self._out_of_turn()),
        }
        suffer[fault.kind]()

    def _crash(self, fault: Fault) -> None:
        if fault.exit_code is not None and self._dialogue.stage.value in ("loading", "serving"):
            self._leave("the engine cannot go on", fault.exit_code)
        else:
            self._end(fault.exit_code, fault.signal)

    def _run_out_of_memory(self) -> None:
        self.memory_problem = "out_of_memory: killed by the kernel with no memory left"
        self._break("out of memory")
        self._end(None, SIGKILL)

    def _hang(self, how: str) -> None:
        self._break(how)
        self._is_hung = True
        self._main_s = math.inf

    def _stand_still(self, lasts_s: float) -> None:
        if lasts_s == math.inf:
            self._break("hangs")
        self.stood_still_s = self._now_s
        self._frozen_until_s = self._now_s + lasts_s
        self._main_s += lasts_s

    def _turn_in_circles(self) -> None:
        self._break("livelock")
        self._is_livelocked = True

    def _fall_silent(self) -> None:
        self._break("does not beat")
        self._is_mute = True

    def _babble(self, frames: Frames) -> None:
        if self._link is not None and self.is_connected:
            self._break("babbles")
            self._link.put(frames)

    def _out_of_turn(self) -> Frames:
        jobs = list(self._engine.jobs.values())
        if jobs and jobs[0].done:
            ahead = Delta(jobs[0].request_id, jobs[0].done + 5, (7,), "again ")
            return encode(Step(self._engine.steps, (ahead,)))
        if self._own.random() < 0.5:
            return encode(Step(self._engine.steps, (Delta(1 << 40, 0, (1,), "whose "),)))
        return encode(Hello(self._secret, self.pid, "0"))

    def _poison(self, job: Job) -> None:
        self.poisoned_by = job.key
        self._around.note(f"pid {self.pid} poisoned by {job.key}")
        match job.script.poison:
            case Poison.CRASH:
                self._end(None, SIGSEGV)
            case Poison.EXIT:
                self._end(int(ExitCode.SOFTWARE), None)
            case Poison.OUT_OF_MEMORY:
                self._run_out_of_memory()
            case _:
                self._hang("hangs on a request")
