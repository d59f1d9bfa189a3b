"""The pool: who serves whom. Owns every open request, and brings its answer to its sink.

All its methods are synchronous and run between two awaits, so nothing changes under them.

Rule 1: a request that was admitted ends by exactly one last word to its sink: a delta with
        ``finish``, or an error. Only its own face may end it silently, by `cancel`.
Rule 2: a request whose worker has ended goes on at another one, behind the last token that its
        sink was given, within its deadline: no token is lost, none comes twice (`failover.py`).
Rule 3: what a sink does wrong is that request's end, and no other's.
Rule 4: a request that crashes its workers ends as quarantined. Those that were beside it are
        worked on apart until that is settled, and go on (`quarantine.py`).
"""

import functools
import math
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from rbee.ask import Ask
from rbee.config import WorkerConfig
from rbee.errors import (
    ErrorCode,
    RequestError,
    model_not_found,
    model_unavailable,
    request_quarantined,
    worker_failed,
)
from rbee.logs import Log
from rbee.metrics import Metrics
from rbee.rate_limits import Priority
from rbee.supervisor.audited import Lives
from rbee.supervisor.dispatch import Dispatch
from rbee.supervisor.failover import may_be_a_requests_doing
from rbee.supervisor.model_slots import ModelSlots
from rbee.supervisor.open_request import FailoverSink, OpenRequest, Sink, likeliest_last
from rbee.supervisor.quarantine import Quarantine, Standing
from rbee.supervisor.slot import Slot
from rbee.supervisor.worker import Worker, WorkerExit
from rbee.wire import Delta, Failed, Step

# So many requests in a row may be found guilty, and no more without an answer between them: then it
# is the engine, and the breaker counts.
GUILTY_IN_A_ROW_MAX: Final = 8

# How long sinks are flushed in one go, and after how many the clock is looked at.
FLUSHES_S_MAX: Final = 0.001
FLUSHES_PER_LOOK: Final = 32


class Pool:
    """Takes asks, gives each to a worker, and brings its deltas to its sink.

    Args:
      backlog: how many requests may wait, and how many tokens they may have together.
    """

    def __init__(  # noqa: PLR0913  # what it works with, once each
        self,
        slots: Iterable[Slot],
        *,
        backlog: tuple[int, int],
        limits: WorkerConfig,
        clock: Callable[[], float],
        log: Log,
        lives: Lives | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._lives = lives
        meter = (metrics or Metrics()).meter
        self._quarantine = Quarantine(secrets.token_bytes(32), limits.quarantine_s)
        self._slots = ModelSlots(slots, clock)
        self._dispatch = Dispatch(
            self._slots,
            backlog,
            self._quarantine,
            clock,
            drop=self._drop,
            waited=lambda model, wait_s: meter(model).queue_waited(wait_s),
        )
        self._failovers_max = limits.failovers_max
        self._clock = clock
        self._log = log
        self._open: dict[int, OpenRequest] = {}
        self._touched: list[OpenRequest] = []
        self._pardons: Counter[str] = Counter()
        self._guilty_in_a_row: Counter[str] = Counter()  # by model: without an answer between
        self._draining_since_s: float | None = None

    # --- for the faces

    def submit(  # noqa: PLR0913  # all that is said of an order
        self,
        asks: Sequence[Ask],
        sinks: Sequence[Sink],
        *,
        remaining_s: float,
        first_token_timeout_s: float = math.inf,
        correlation_id: str,
        priority: Priority = Priority.NORMAL,
        cache_salt: bytes = b"",
    ) -> list[int]:
        """Admit all asks of an order, which are of one model, or none of them.

        Args:
          first_token_timeout_s: an order of which each would wait longer is refused.
          cache_salt: workers reuse for them what they have kept of asks with the same one.

        Returns:
          The requests' ids.

        Raises:
          RequestError: refused; nothing was taken.
        """
        model, dispatch, now_s = asks[0].model, self._dispatch, self._clock()
        self._check_admission(model)
        requests = [
            OpenRequest(
                dispatch.next_id(), ask, sink, now_s + remaining_s, correlation_id, priority,
                cache_salt, admitted_s=now_s,
            )
            for ask, sink in zip(asks, sinks, strict=True)
        ]  # fmt: skip
        standings = [dispatch.standing(each) for each in requests]
        if Standing.QUARANTINED in standings:
            raise request_quarantined()
        are_suspects = Standing.SUSPECT in standings
        check_wait = functools.partial(dispatch.check_wait, are_suspects=are_suspects)
        free = dispatch.free(requests, are_suspects=are_suspects)
        if free < len(requests):
            # An order that begins now would not begin sooner at any other time.
            allowed_s = (math.inf, math.inf) if free else (remaining_s, first_token_timeout_s)
            check_wait(requests[free:], *allowed_s)
        try:
            for number, (request, standing) in enumerate(zip(requests, standings, strict=True)):
                if are_suspects or not dispatch.send_now(request):
                    if number < free and not are_suspects:  # its worker has ended just now
                        free = number
                        check_wait(requests[free:], remaining_s, first_token_timeout_s)
                    dispatch.wait(request, standing)
                self._open[request.request_id] = request
        except Exception:
            for request in requests:
                self.cancel(request.request_id, "one of its order could not be sent")
            raise
        if are_suspects:
            dispatch.pump(model)
        return [each.request_id for each in requests]

    def cancel(self, request_id: int, reason: str) -> None:
        """End a request without a word to its sink. Ids that are done are ignored."""
        request = self._open.pop(request_id, None)
        if request is None:
            return
        self._log.debug("request_cancelled", correlation_id=request.correlation_id, reason=reason)
        self._dispatch.remove(request)

    # --- for the supervisor

    @property
    def open_requests(self) -> int:
        return len(self._open)

    @property
    def queued(self) -> int:
        return len(self._dispatch.waiting)

    def queued_for(self, model: str) -> int:
        return self._dispatch.waiting.count(model)

    @property
    def is_draining(self) -> bool:
        return self._draining_since_s is not None

    @property
    def draining_since_s(self) -> float | None:
        return self._draining_since_s

    def drain(self) -> None:
        """Refuse what comes from now on."""
        self._draining_since_s = self._clock()

    def fail_all(self, error: RequestError) -> None:
        """End everything that is open: the supervisor will not serve it."""
        for request in list(self._open.values()):
            self._end(request, error)

    # --- for workers and slots

    def pardons(self, slot_id: str) -> int:
        """How many crashes of this slot were a request's doing, as far as is known by now.

        Such a crash says nothing against the worker. It may be known only at a later one, so
        the count is to be read again after each.
        """
        return self._pardons[slot_id]

    def worker_ready(self, worker: Worker) -> None:
        ready = worker.ready
        assert ready is not None
        load_s = self._clock() - worker.started_s
        if self._lives is not None:
            self._lives.ready(worker.worker_id, worker.pid, load_s)
        self._log.info(
            "worker_ready", worker=worker.worker_id, pid=worker.pid, model=worker.model,
            engine=ready.engine, device=ready.device, context_length=ready.context_length,
            batch_size=ready.batch_size, load_s=round(load_s, 3),
        )  # fmt: skip
        self._dispatch.pump(worker.model)

    def step_done(self, worker: Worker, step: Step) -> None:
        sent, suspects = self._dispatch.sent, self._dispatch.suspects_at(worker)
        for delta in step.deltas:
            request = sent(delta.request_id)
            if request is None:
                continue  # cancelled by the sink of an earlier delta of this step
            told = request.course.take(delta)
            if delta.finish is not None:
                self._take_out(request)
                self._guilty_in_a_row.pop(worker.model, None)
            self._push(request, told)
        self._dispatch.let_go(worker)
        for suspect in suspects:
            self._hear(suspect)
        # Also when nothing has ended here: the last word on what was cancelled may have come.
        if self._dispatch.waiting.has_any(worker.model):
            self._dispatch.pump(worker.model)

    def turn_done(self) -> bool:
        """All that came together was delivered: each sink it touched sends it in one go.

        Returns:
          Whether there is more to send: a send is a system call, and others want to run, too.
        """
        now_s = self._clock()
        until_s = now_s + FLUSHES_S_MAX
        while self._touched and now_s < until_s:
            touched = self._touched[:FLUSHES_PER_LOOK]
            del self._touched[:FLUSHES_PER_LOOK]
            for request in touched:
                self._flush(request, now_s)
            now_s = self._clock()
        return bool(self._touched)

    def request_failed(self, worker: Worker, failed: Failed) -> None:
        request = self._dispatch.sent(failed.request_id)
        if request is not None:
            self._take_out(request)
            self._tell(request, RequestError(failed.code, failed.message, param=failed.param))
            self._dispatch.sort(worker.model)
        self._dispatch.pump(worker.model)

    def room_made(self, worker: Worker) -> None:
        self._dispatch.let_go(worker)
        self._dispatch.pump(worker.model)

    def worker_gone(self, worker: Worker, ending: WorkerExit) -> None:
        mine, cancelled = self._dispatch.take_back(worker)
        returning = mine[::-1]  # each goes to the head of its line: the oldest last
        if may_be_a_requests_doing(
            was_asked=ending.was_asked, fault=ending.fault, exit_code=ending.exit_code,
            signal=ending.signal,
        ):  # fmt: skip
            self._judge(worker, mine + cancelled)
            returning = likeliest_last(mine)
        for request in returning:
            if request.request_id in self._open:
                self._fail_over(request)
        if mine:
            go_on = sum(1 for each in mine if each.request_id in self._open)
            self._log.warning(
                "requests_interrupted", worker=worker.worker_id, how=str(ending),
                requests=len(mine), go_on=go_on,
            )  # fmt: skip
        self._dispatch.pump(worker.model)

    def slot_failed(self, slot: Slot) -> None:
        model = slot.model.name
        if self._slots.is_served(model):
            self._dispatch.pump(model)
            return
        for request in self._dispatch.waiting.of_model(model):
            self._end(request, model_unavailable(model, self._slots.trial_in_s(model)))

    # --- admission

    def _check_admission(self, model: str) -> None:
        if self.is_draining:
            raise RequestError(ErrorCode.DRAINING, "the server is shutting down", retry_after_s=5.0)
        if not self._slots.knows(model):
            raise model_not_found()
        if not self._slots.is_served(model):
            raise model_unavailable(model, self._slots.trial_in_s(model))

    # --- crashes

    def _fail_over(self, request: OpenRequest) -> None:
        """Put a request whose worker is gone back into its line, if it may go on."""
        if not request.course.interrupt(self._failovers_max):
            self._end(request, worker_failed(request.course.failovers_in_a_row + 1))
            return
        self._dispatch.wait_first(request)
        if isinstance(request.sink, FailoverSink):
            try:
                request.sink.moved()
            except Exception:  # noqa: BLE001  # rule 3
                self._sink_failed(request)

    def _judge(self, worker: Worker, in_work: list[OpenRequest]) -> None:
        """Find out which request crashed the worker, as far as that can be known now."""
        if not in_work:
            return
        tokens: dict[bytes, int] = {}
        for request in in_work:
            mark = self._dispatch.fingerprint(request)
            tokens[mark] = max(tokens.get(mark, 0), request.course.tokens_here)
        verdict = self._quarantine.crashed(worker.worker_id, tokens, self._clock())
        if verdict.guilty is None:
            self._dispatch.keep_suspected(worker.model)
            return
        self._guilty_in_a_row[worker.model] += 1
        if self._guilty_in_a_row[worker.model] <= GUILTY_IN_A_ROW_MAX:
            self._pardons.update(verdict.explained)
            self._slots.pardon(worker.model, verdict.explained)
        self._log.error(
            "request_quarantined", correlation_id=in_work[0].correlation_id,
            fingerprint=verdict.guilty.hex()[:12], crashes=len(verdict.explained),
        )  # fmt: skip
        for request in (*in_work, *self._dispatch.at_workers(worker.model)):
            if self._dispatch.fingerprint(request) == verdict.guilty:
                self._end(request, request_quarantined())
        self._dispatch.sort(worker.model)

    def _hear(self, suspect: OpenRequest) -> None:
        """A suspect that works apart brought something: it may be cleared by now."""
        dispatch, model = self._dispatch, suspect.ask.model
        if suspect.worker is not None:
            self._quarantine.brought(dispatch.fingerprint(suspect), suspect.course.tokens_here)
        if dispatch.standing(suspect) is Standing.SUSPECT:
            return
        self._log.debug("suspect_cleared", correlation_id=suspect.correlation_id)
        dispatch.sort(model)
        if suspect.worker is not None and dispatch.waiting.has_suspects(model):
            dispatch.withdraw(suspect)  # the next one needs the worker for itself
        dispatch.pump(model)

    def _drop(self, request: OpenRequest, standing: Standing) -> None:
        if standing is Standing.QUARANTINED:
            self._end(request, request_quarantined())
        else:
            message = "the deadline of this request passed while it waited for a worker"
            self._end(request, RequestError(ErrorCode.DEADLINE_EXCEEDED, message))

    # --- words to sinks

    def _take_out(self, request: OpenRequest) -> None:
        """The worker has said its last word on it, and lives: this is no request that kills."""
        del self._open[request.request_id]
        self._dispatch.finish(request)
        if request.fingerprint is not None:
            self._quarantine.ended(request.fingerprint)

    def _push(self, request: OpenRequest, delta: Delta) -> None:
        if not request.is_touched:
            request.is_touched = True
            self._touched.append(request)
        try:
            request.sink.push(delta)
        except Exception:  # noqa: BLE001  # rule 3
            self._sink_failed(request)

    def _flush(self, request: OpenRequest, now_s: float) -> None:
        request.is_touched = False
        try:
            request.sink.flush(now_s)
        except Exception:  # noqa: BLE001  # rule 3
            self._sink_failed(request)

    def _sink_failed(self, request: OpenRequest) -> None:
        """Called where the exception is handled: the log has its place."""
        self._log.error("sink_failed", correlation_id=request.correlation_id, exc_info=True)
        self.cancel(request.request_id, "its sink failed")
        self._tell(request, RequestError(ErrorCode.INTERNAL_ERROR, "an internal error"))

    def _end(self, request: OpenRequest, error: RequestError) -> None:
        """End a request with an error, wherever it is. Nothing happens to one that is over."""
        if self._open.pop(request.request_id, None) is not None:
            self._dispatch.remove(request)
            self._tell(request, error)

    def _tell(self, request: OpenRequest, error: RequestError) -> None:
        try:
            request.sink.fail(error)
        except Exception:  # noqa: BLE001  # rule 3
            self._log.error("sink_failed", correlation_id=request.correlation_id, exc_info=True)
