"""Looks at the pool after each word that it hears of a worker: are its books right?

It stands between the workers and the pool as `SlotDelivery`, and notes what the judge of requests
needs to know: who was interrupted how often, and what was in work at which crash.
"""

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Final, cast

import trio

from rbee.supervisor.failover import may_be_a_requests_doing
from rbee.supervisor.launch import EngineChild
from rbee.supervisor.open_request import OpenRequest
from rbee.supervisor.pool import Pool
from rbee.supervisor.quarantine import Standing
from rbee.supervisor.slot import Slot
from rbee.supervisor.worker import Worker, WorkerExit
from rbee.wire import Failed, Step
from tests.simulation.line_watch import WatchedBacklog
from tests.simulation.oracle import ask_key
from tests.simulation.sim_link import SimLink
from tests.simulation.trace import Trace


@dataclass(frozen=True, slots=True)
class Crash:
    """The end of a worker that one of its requests may be guilty of."""

    at_s: float
    in_work: frozenset[str]  # ask keys


class PoolWatch:
    """Implements `SlotDelivery`."""

    def __init__(self, pool: Pool, slots: list[Slot], trace: Trace) -> None:
        self.interruptions: Final[defaultdict[str, list[int]]] = defaultdict(list)
        self.crashes: Final[list[Crash]] = []
        self.over_s: Final[dict[str, float]] = {}  # when a model last lost its last slot
        self._pool = pool
        self._slots = slots
        self._trace = trace
        waiting = pool._dispatch.waiting
        waiting._common = WatchedBacklog(waiting.bound, trace.expect)

    # --- what workers and slots say

    def worker_ready(self, worker: Worker) -> None:
        self._pool.worker_ready(worker)
        self.check()

    def step_done(self, worker: Worker, step: Step) -> None:
        self._trace.note(
            f"step {worker.worker_id} {[(d.request_id, d.index) for d in step.deltas]}"
        )
        self._pool.step_done(worker, step)
        self.check()

    def request_failed(self, worker: Worker, failed: Failed) -> None:
        self._trace.note(f"failed {worker.worker_id} {failed.request_id} {failed.code}")
        self._pool.request_failed(worker, failed)
        self.check()

    def room_made(self, worker: Worker) -> None:
        self._trace.note(f"room {worker.worker_id}")
        self._pool.room_made(worker)
        self.check()

    def turn_done(self) -> bool:
        has_touched = bool(self._pool._touched)
        is_more = self._pool.turn_done()
        if has_touched:  # else it has done nothing
            self.check()
        return is_more

    def worker_gone(self, worker: Worker, ending: WorkerExit) -> None:
        self._trace.note(f"gone {worker.worker_id} {ending}")
        self._note_end(worker, ending)
        self._pool.worker_gone(worker, ending)
        self.check()

    def slot_failed(self, slot: Slot) -> None:
        if all(each.is_over for each in self._slots if each.model.name == slot.model.name):
            self.over_s[slot.model.name] = trio.current_time()
        self._pool.slot_failed(slot)
        self.check()

    def pardons(self, slot_id: str) -> int:
        return self._pool.pardons(slot_id)

    def _note_end(self, worker: Worker, ending: WorkerExit) -> None:
        dispatch = self._pool._dispatch
        mine = list(dispatch._there._at.get(worker, {}).values())
        for request in mine:
            self.interruptions[_name(request)].append(request.course.tokens)
        may_be = may_be_a_requests_doing(
            was_asked=ending.was_asked, fault=ending.fault, exit_code=ending.exit_code,
            signal=ending.signal,
        )  # fmt: skip
        cancelled = dispatch._there._leaving.get(worker, [])
        in_work = [*mine, *(each for each in cancelled if worker.is_open(each.wire_id))]
        if may_be and in_work:
            keys = frozenset(ask_key(each.ask) for each in in_work)
            self.crashes.append(Crash(trio.current_time(), keys))

    # --- the books

    def check(self) -> None:
        """Called at nearly all that happens: what is told of a violation is put into words then."""
        dispatch, violation = self._pool._dispatch, self._trace.violation
        waiting, sent = len(dispatch.waiting), len(dispatch._there._sent)
        if len(self._pool._open) != waiting + sent:
            violation("an open request neither waits nor is at a worker")
        if dispatch.waiting.bound.requests != waiting:
            violation("a line holds who does not wait")
        if sum(map(len, dispatch._there._at.values())) != sent:
            violation("a request is at no worker, or at two")
        for worker, there in dispatch._there._at.items():
            self._check_worker(worker, there)
        if len(dispatch._kept) > 1:
            self._check_equals()
        if waiting:
            for slot in self._slots:
                self._check_idle(slot)

    def _check_worker(self, worker: Worker, there: dict[int, OpenRequest]) -> None:
        violation = self._trace.violation
        on_link = {each.request_id for each in worker.requests if not each.is_cancelled}
        if on_link != there.keys():
            violation(f"{worker.worker_id} works on what nobody knows of")
        if worker.ready is not None and worker.open_requests > worker.batch_size:
            violation(f"{worker.worker_id} has more than its batch")
        for suspect in self._pool._dispatch.suspects_at(worker):
            # Beside one that came to be suspected there, by the crash of its twin, others go on.
            since_s = max(self._suspected_s(suspect), suspect.sent_s)
            if any(each.sent_s > since_s for each in there.values()):
                violation(f"{worker.worker_id} has others beside a suspect")

    def _check_equals(self) -> None:
        """Of equal suspects one works apart at a time, and be it cancelled there."""
        dispatch, apart = self._pool._dispatch, Counter[str]()
        for worker in dispatch._kept:
            in_work = dispatch._there.in_work(worker)
            if all(self._was_sent_apart(each) for each in in_work):
                apart.update({ask_key(each.ask) for each in in_work})
        for key, workers in apart.items():
            if workers > 1:
                self._trace.violation(f"{key} works apart at {workers} workers")

    def _was_sent_apart(self, request: OpenRequest) -> bool:
        is_suspect = self._pool._dispatch.standing(request) is Standing.SUSPECT
        return is_suspect and request.sent_s >= self._suspected_s(request)

    def _suspected_s(self, request: OpenRequest) -> float:
        key = ask_key(request.ask)
        return max((each.at_s for each in self.crashes if key in each.in_work), default=-math.inf)

    def _check_idle(self, slot: Slot) -> None:
        """Nobody waits while a worker has room that is not kept for suspects."""
        worker, dispatch = slot.worker, self._pool._dispatch
        if worker is None or worker in dispatch._kept or not takes_more(worker):
            return
        if dispatch.waiting.first(slot.model.name) is not None:
            self._trace.violation(f"{slot.slot_id} has room, and somebody waits")

    def check_empty(self) -> None:
        """At the end nothing is left in any book."""
        pool, dispatch = self._pool, self._pool._dispatch
        left = Counter(
            open=len(pool._open),
            touched=len(pool._touched),
            waiting=len(dispatch.waiting),
            sent=len(dispatch._there._sent),
            at=len(dispatch._there._at),
            leaving=len(dispatch._there._leaving),
            kept=len(dispatch._kept),
            queued=dispatch.waiting.bound.requests,
        )
        kept = {name: count for name, count in left.items() if count}
        self._trace.expect(not kept, f"left in the pool's books: {kept}")


def takes_more(worker: Worker) -> bool:
    """Whether a request can be sent to it: its process may have ended, and not be seen yet."""
    return (
        worker.takes_requests and not cast(SimLink, cast(EngineChild, worker.child)._link).is_deaf
    )


def _name(request: OpenRequest) -> str:
    return f"{request.correlation_id} {ask_key(request.ask)}"
