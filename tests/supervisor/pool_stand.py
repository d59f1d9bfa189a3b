"""A pool over workers that are objects: ticks instead of time, crashes by what is in work.

Everything is synchronous and decided by the caller's random source, so that thousands of
histories can be played, and each again.
"""

import random
from dataclasses import dataclass, field
from typing import Any

from rbee.ask import Ask
from rbee.config import WorkerConfig
from rbee.errors import ErrorCode, RequestError
from rbee.supervisor.lifecycle import WorkerState
from rbee.supervisor.pool import Pool
from rbee.supervisor.slot import Slot, SlotState
from rbee.supervisor.worker import WorkerExit
from rbee.wire import Delta, Failed, Step
from tests.supervisor.fakes import NoLog, plan

TICK_S = 0.01
CRASH, KILL = 11, 9  # signals


@dataclass
class Job:
    ask: Ask
    index: int  # of its next token
    steps: int = 0  # here


@dataclass(eq=False)
class StandWorker:
    """As much of a `Worker` as the pool sees. Its answers count 0, 1, 2, …

    An ask whose prompt is ``poison N`` crashes it at the N-th step that it takes part in.
    """

    worker_id: str
    model: str = "m"
    batch_size: int = 8
    pid: int = 1
    state: WorkerState = WorkerState.READY
    jobs: dict[int, Job] = field(default_factory=dict)
    cancelled: list[int] = field(default_factory=list)

    @property
    def takes_requests(self) -> bool:
        return self.state is WorkerState.READY and self.open_requests < self.batch_size

    @property
    def open_requests(self) -> int:
        return len(self.jobs)

    def is_open(self, wire_id: int) -> bool:
        return wire_id in self.jobs

    def generate(
        self,
        wire_id: int,
        ask: Ask,
        remaining_s: float,
        cid: str,
        resume_ids: tuple[int, ...],
        cache_salt: bytes,
    ) -> None:
        assert self.takes_requests, "it was sent what it cannot take"
        assert wire_id not in self.jobs, "this number is open here already"
        assert list(resume_ids) == list(range(len(resume_ids)))
        self.jobs[wire_id] = Job(ask, len(resume_ids))

    def cancel(self, wire_id: int) -> None:
        if wire_id in self.jobs and wire_id not in self.cancelled:
            self.cancelled.append(wire_id)

    def step(self) -> list[Delta] | None:
        """One engine step. None: it crashed."""
        for job in self.jobs.values():
            job.steps += 1
            kind, _, number = (job.ask.prompt or "").partition(" ")
            if kind == "poison" and job.steps >= int(number):
                return None
        deltas = []
        for wire_id, job in list(self.jobs.items()):
            is_last = job.index + 1 == job.ask.tokens_max
            finish: Any = "length" if is_last else None
            deltas.append(Delta(wire_id, job.index, (job.index,), f"{job.index} ", finish, 5))
            job.index += 1
            if is_last:
                del self.jobs[wire_id]
        return deltas


@dataclass
class StandSink:
    """Holds the pool to its promises to one request."""

    ids: list[int] = field(default_factory=list)
    prompt_tokens: list[int] = field(default_factory=list)
    finish: str | None = None
    error: RequestError | None = None
    moves: int = 0

    def push(self, delta: Delta) -> None:
        assert not self.is_over, "a delta after the last word"
        assert delta.index == len(self.ids), "a token is lost or came twice"
        self.ids.extend(delta.token_ids)
        self.finish = delta.finish
        if delta.prompt_tokens:
            self.prompt_tokens.append(delta.prompt_tokens)

    def flush(self, now_s: float) -> None:
        return

    def fail(self, error: RequestError) -> None:
        assert not self.is_over, "two last words"
        self.error = error

    def moved(self) -> None:
        assert not self.is_over, "it moves after its last word"
        self.moves += 1

    @property
    def is_over(self) -> bool:
        return self.error is not None or self.finish is not None

    @property
    def code(self) -> ErrorCode | None:
        return self.error.code if self.error is not None else None


class Stand:
    """Slots, workers and requests, moved on tick by tick.

    Args:
      is_crossed: the last words on cancelled requests have left before the word to cancel came.
    """

    def __init__(
        self,
        *,
        slots: int = 1,
        batch_size: int = 8,
        restart_ticks: int = 3,
        is_crossed: bool = False,
        requests_max: int = 10_000,
        **limits: Any,
    ) -> None:
        self.now_s = 0.0
        self.crashes = 0
        self.restart_ticks = restart_ticks
        self.is_crossed = is_crossed
        self.batch_size = batch_size
        self.log = NoLog()
        self.slots = [Slot(plan(f"m-{number}")) for number in range(slots)]
        self.pool = Pool(
            self.slots,
            backlog=(requests_max, 1 << 40),
            limits=WorkerConfig(**limits),
            clock=lambda: self.now_s,
            log=self.log,
        )
        self._refill: dict[str, int] = {}
        for slot in self.slots:
            self._fill(slot)

    def submit(self, prompt: str = "hi", tokens_max: int = 10, remaining_s: float = 1e6) -> Any:
        sink = StandSink()
        ask = Ask(model="m", prompt=prompt, tokens_max=tokens_max)
        [request_id] = self.pool.submit(
            [ask], [sink], remaining_s=remaining_s, correlation_id="cid"
        )
        return sink, request_id

    def worker(self, slot: Slot) -> StandWorker | None:
        return slot.worker  # type: ignore[return-value]

    def tick(self) -> None:
        """Each worker does one step, or crashes; an empty slot comes nearer to its next one."""
        self.now_s += TICK_S
        for slot in self.slots:
            worker = self.worker(slot)
            if worker is None:
                self._refill[slot.slot_id] -= 1
                if self._refill[slot.slot_id] <= 0:
                    self._fill(slot)
            elif worker.jobs:
                self._step(slot, worker)

    def run(self, ticks: int = 20_000) -> None:
        """Until nothing is open."""
        while self.pool.open_requests:
            self.tick()
            ticks -= 1
            assert ticks, f"{self.pool.open_requests} never end, {self.pool.queued} wait"

    def end(self, slot: Slot, signal: int, fault: str = "") -> None:
        worker = self.worker(slot)
        assert worker is not None
        worker.state = WorkerState.GONE
        ending = WorkerExit(WorkerState.BUSY, None, signal, fault, "", False, 1.0)
        self.pool.worker_gone(worker, ending)  # type: ignore[arg-type]
        slot.worker = None
        slot.state = SlotState.WAITING
        self._refill[slot.slot_id] = self.restart_ticks

    def give_up(self, slot: Slot) -> None:
        slot.state = SlotState.FAILED
        self._refill[slot.slot_id] = 10**9
        self.pool.slot_failed(slot)

    def _fill(self, slot: Slot) -> None:
        slot.worker = StandWorker(slot.slot_id, batch_size=self.batch_size)  # type: ignore[assignment]
        slot.state = SlotState.FILLED
        if self.now_s:
            self.pool._dispatch.pump("m")

    def _step(self, slot: Slot, worker: StandWorker) -> None:
        deltas = worker.step()
        if deltas is None:
            self.crashes += 1
            self.end(slot, CRASH)
            return
        self._drop_cancelled(worker)
        open_deltas = [each for each in deltas if each.request_id not in worker.cancelled]
        self.pool.step_done(worker, Step(1, tuple(open_deltas)))  # type: ignore[arg-type]
        self.pool.turn_done()
        worker.cancelled = [each for each in worker.cancelled if each in worker.jobs]

    def _drop_cancelled(self, worker: StandWorker) -> None:
        for wire_id in worker.cancelled:
            if worker.jobs.pop(wire_id, None) is not None and not self.is_crossed:
                self.pool.room_made(worker)  # type: ignore[arg-type]

    def fail_one(self, slot: Slot, chance: random.Random) -> None:
        """The engine gives one job up."""
        worker = self.worker(slot)
        assert worker is not None
        wire_id = chance.choice([each for each in worker.jobs if each not in worker.cancelled])
        del worker.jobs[wire_id]
        self.pool.request_failed(worker, Failed(wire_id, ErrorCode.ENGINE_FAILED, "x"))  # type: ignore[arg-type]
