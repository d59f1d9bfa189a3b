"""A worker process that needs no time: it plays the worker's end of the protocol.

`FakeLaunch` hands out its children in order, and notes when each was launched and reaped.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import trio

from rbee.ask import FinishReason
from rbee.config import ModelConfig
from rbee.dialogue import Stage, WorkerDialogue
from rbee.errors import ErrorCode
from rbee.supervisor.child import Child
from rbee.supervisor.worker import Worker, WorkerExit, WorkerPlan
from rbee.wire import (
    Beat,
    Bye,
    Cancel,
    Delta,
    Drain,
    Failed,
    FromWorker,
    Generate,
    Hello,
    Loading,
    Phase,
    Ready,
    Step,
    Stop,
    Welcome,
)

SECRET = b"s" * 32


def plan(worker_id: str = "m-0", model: str = "m") -> WorkerPlan:
    config = ModelConfig(ref="synthetic", name=model, engine="synthetic")
    return WorkerPlan(worker_id, Welcome(config, "", 1, 5.0))


class NoLog:
    """A log that keeps the events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def debug(self, event: str, **fields: Any) -> None:
        self.events.append((event, fields))

    info = warning = error = debug


@dataclass
class FakeChild:
    """How one worker behaves, all times from its launch."""

    hello_after_s: float = 0.0
    load_s: float = 0.0
    exit_after_s: float = math.inf
    exit_code: int = 0
    signal: int | None = None
    nonsense: bool = False  # its Hello is no message
    beats_until_s: float = math.inf
    says_bye: str = ""
    batch_size: int = 8
    answer: int = 3  # tokens of each answer, one per second
    answers: bool = True
    lets_go_after_s: float = 0.0  # of what was cancelled
    survives: bool = False  # SIGKILL: its driver hangs
    pid: int = 42
    cause: str = ""
    secret: bytes = SECRET
    got: list[object] = field(default_factory=list)
    killed: list[str] = field(default_factory=list)
    stacks_asked: int = 0

    def __post_init__(self) -> None:
        self._dialogue = WorkerDialogue()
        self._to_supervisor, self._from_worker = trio.open_memory_channel[list[bytes]](10_000)
        self._to_worker, self._from_supervisor = trio.open_memory_channel[list[bytes]](10_000)
        self._ended = trio.Event()
        self.was_killed = trio.Event()
        self._cancelled: set[int] = set()

    # --- the supervisor's side

    def send(self, frames: list[bytes]) -> None:
        self._to_worker.send_nowait(frames)

    async def receive(self) -> list[bytes]:
        return await self._from_worker.receive()

    def receive_nowait(self) -> list[bytes] | None:
        try:
            return self._from_worker.receive_nowait()
        except trio.WouldBlock:
            return None

    def ask_stacks(self) -> None:
        self.stacks_asked += 1

    def kill(self, reason: str) -> None:
        self.killed.append(reason)
        self.was_killed.set()
        if not self.survives:
            self.end(signal=9)

    async def wait_exit(self) -> tuple[int | None, int | None]:
        await self._ended.wait()
        return (None, self.signal) if self.signal is not None else (self.exit_code, None)

    # --- the worker's side

    def end(self, signal: int | None) -> None:
        if not self._ended.is_set():
            self.signal = signal
            self._ended.set()

    def say(self, message: FromWorker) -> None:
        self._to_supervisor.send_nowait(self._dialogue.send(message))

    async def live(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._exit_in_time)
            await trio.sleep(self.hello_after_s)
            if self.nonsense:
                self._to_supervisor.send_nowait([b"nonsense"])
                return
            self.say(Hello(self.secret, self.pid, "0"))
            await self._obey(await self._from_supervisor.receive(), nursery)
            if self._ended.is_set():  # it was told to stop instead of what to load
                return
            nursery.start_soon(self._beat)
            self.say(Loading(Phase.LOADING, 0.1))
            await trio.sleep(self.load_s)
            self.say(Ready("synthetic", "none", 4096, self.batch_size, (), 0, {}))
            async for frames in self._from_supervisor:
                await self._obey(frames, nursery)

    async def _exit_in_time(self) -> None:
        await trio.sleep(self.exit_after_s)
        self.end(self.signal)

    async def _beat(self) -> None:
        while trio.current_time() < self.beats_until_s:
            self.say(Beat(Phase.IDLE, 0, 0, {}, 0.0, 0, 0))
            await trio.sleep(5)

    async def _obey(self, frames: list[bytes], nursery: trio.Nursery) -> None:
        message = self._dialogue.receive(frames)
        self.got.append(message)
        match message:
            case Generate():
                if self.answers:
                    nursery.start_soon(self._answer, message)
            case Cancel(request_id=request_id):
                self._cancelled.add(request_id)
                if not self.lets_go_after_s:
                    self._let_go(request_id)
                else:
                    nursery.start_soon(self._let_go_later, request_id)
            case Stop() if self._dialogue.stage is Stage.LEFT:
                pass  # the answer to its Bye
            case Drain() | Stop():
                self.say(Bye(self.says_bye or "drained", 0))
                self.end(None)

    def _let_go(self, request_id: int) -> None:
        if self._dialogue.is_open(request_id):
            self.say(Failed(request_id, ErrorCode.CANCELLED, "cancelled"))

    async def _let_go_later(self, request_id: int) -> None:
        await trio.sleep(self.lets_go_after_s)
        self._let_go(request_id)

    async def _answer(self, ask: Generate) -> None:
        for index in range(len(ask.resume_ids), self.answer):
            await trio.sleep(1)
            if ask.request_id in self._cancelled:
                return
            finish: FinishReason | None = "length" if index == self.answer - 1 else None
            delta = Delta(ask.request_id, index, (index,), f"{index} ", finish, 1)
            self.say(Step(index, (delta,)))


class FakeLaunch:
    """Hands out its children in order; afterwards good ones."""

    def __init__(self, *children: FakeChild) -> None:
        self._children = list(children)
        self.launched: list[FakeChild] = []
        self.launched_at_s: list[float] = []
        self.reaped_at_s: list[float] = []

    async def __call__(self, worker_id: str, *, task_status: trio.TaskStatus[Child]) -> None:
        child = self._children.pop(0) if self._children else FakeChild()
        self.launched.append(child)
        self.launched_at_s.append(trio.current_time())
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child.live)
                task_status.started(child)
                await child.wait_exit()
                nursery.cancel_scope.cancel()
        finally:
            self.reaped_at_s.append(trio.current_time())


@dataclass
class Heard:
    """A `SlotDelivery` that notes what it hears."""

    on_ready: Callable[[Worker], None] = lambda _worker: None
    endings: list[WorkerExit] = field(default_factory=list)
    ready: list[Worker] = field(default_factory=list)
    failed_slots: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    pardoned: int = 0

    def worker_ready(self, worker: Worker) -> None:
        self.ready.append(worker)
        self.on_ready(worker)

    def step_done(self, worker: Worker, step: Step) -> None:
        self.steps.append(step)

    def request_failed(self, worker: Worker, failed: Failed) -> None:
        raise AssertionError(f"unexpected {failed}")

    def room_made(self, worker: Worker) -> None:
        return

    def turn_done(self) -> bool:
        return False

    def worker_gone(self, worker: Worker, ending: WorkerExit) -> None:
        self.endings.append(ending)

    def pardons(self, slot_id: str) -> int:
        return self.pardoned

    def slot_failed(self, slot: Any) -> None:
        self.failed_slots.append(slot.slot_id)
