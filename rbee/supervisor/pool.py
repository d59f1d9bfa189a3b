"""The pool: who serves whom. Owns every open request and the backlog.

All its methods are synchronous and run between two awaits, so nothing changes under them.

Rule 1: a request that was admitted ends by exactly one last word to its sink: a delta with
        ``finish``, or an error. Only its own face may end it silently, by `cancel`.
Rule 2: a request whose worker died before its first token is sent again, at the head of the
        queue, at most ``retries_max`` times. One that has begun ends with an error.
Rule 3: what a sink does wrong is that request's end, and no other's.
"""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from rbee.ask import Ask
from rbee.errors import ErrorCode, LinkFullError, RequestError
from rbee.logs import Log
from rbee.supervisor.backlog import Backlog, Rates
from rbee.supervisor.placement import choose
from rbee.supervisor.slot import Slot, SlotState
from rbee.supervisor.worker import Worker, WorkerExit
from rbee.wire import Delta, Failed, Step


class Sink(Protocol):
    """Where the answer to one ask goes. Must not block."""

    def push(self, delta: Delta) -> None: ...

    def flush(self) -> None:
        """Send what was pushed in this turn of the receiver."""
        ...

    def fail(self, error: RequestError) -> None: ...


@dataclass(slots=True)
class _Open:
    """A request that was admitted and has not ended."""

    request_id: int
    ask: Ask
    sink: Sink
    deadline_s: float
    correlation_id: str
    worker: Worker | None = None  # None: it waits in the backlog
    sent_s: float = 0.0
    tokens: int = 0  # delivered
    retries: int = 0
    is_touched: bool = False  # its sink has what was not flushed


class Pool:
    """Takes asks, gives each to a worker, and brings its deltas to its sink."""

    def __init__(
        self,
        slots: Iterable[Slot],
        *,
        requests_max: int,
        retries_max: int,
        clock: Callable[[], float],
        log: Log,
    ) -> None:
        self._slots: dict[str, list[Slot]] = {}
        for slot in slots:
            self._slots.setdefault(slot.model.name, []).append(slot)
        self._backlog = Backlog(requests_max)
        self._rates = Rates()
        self._retries_max = retries_max
        self._clock = clock
        self._log = log
        self._ids = itertools.count(1)
        self._open: dict[int, _Open] = {}
        self._touched: list[_Open] = []
        self._is_draining = False

    # --- for the faces

    def submit(self, ask: Ask, sink: Sink, *, remaining_s: float, correlation_id: str) -> int:
        """Admit one ask.

        Returns:
          The request's id.

        Raises:
          RequestError: refused; nothing was taken.
        """
        self._check_admission(ask.model)
        now_s = self._clock()
        request = _Open(next(self._ids), ask, sink, now_s + remaining_s, correlation_id)
        if self._backlog.first(ask.model) is None and self._send(request):
            self._open[request.request_id] = request
            return request.request_id
        if self._backlog.is_full:
            raise RequestError(
                ErrorCode.QUEUE_FULL,
                "the queue is full",
                retry_after_s=self._rates.retry_after_s(
                    len(self._backlog), self._capacity(ask.model)
                ),
            )
        self._open[request.request_id] = request
        self._backlog.add(ask.model, request.request_id)
        return request.request_id

    def cancel(self, request_id: int, reason: str) -> None:
        """End a request without a word to its sink. Ids that are done are ignored."""
        request = self._open.pop(request_id, None)
        if request is None:
            return
        self._log.debug("request_cancelled", correlation_id=request.correlation_id, reason=reason)
        if request.worker is None:
            self._backlog.remove(request.ask.model, request_id)
        else:
            request.worker.cancel(request_id)

    # --- for the supervisor

    @property
    def open_requests(self) -> int:
        return len(self._open)

    @property
    def queued(self) -> int:
        return len(self._backlog)

    @property
    def is_draining(self) -> bool:
        return self._is_draining

    def drain(self) -> None:
        """Refuse what comes from now on."""
        self._is_draining = True

    def fail_all(self, error: RequestError) -> None:
        """End everything that is open: the supervisor will not serve it."""
        for request in list(self._open.values()):
            if request.worker is not None:
                request.worker.cancel(request.request_id)
            self._fail(request, error)

    # --- for workers and slots

    def worker_ready(self, worker: Worker) -> None:
        ready = worker.ready
        assert ready is not None
        self._log.info(
            "worker_ready", worker=worker.worker_id, pid=worker.pid, model=worker.model,
            engine=ready.engine, device=ready.device, context_length=ready.context_length,
            batch_size=ready.batch_size, load_s=round(self._clock() - worker.started_s, 3),
        )  # fmt: skip
        self._pump(worker.model)

    def step_done(self, worker: Worker, step: Step) -> None:
        has_ended = False
        for delta in step.deltas:
            request = self._open.get(delta.request_id)
            if request is None:
                continue  # cancelled by the sink of an earlier delta of this step
            request.tokens += len(delta.token_ids)
            if delta.finish is not None:
                has_ended = True
                del self._open[delta.request_id]
                self._rates.note(self._clock() - request.sent_s)
            self._push(request, delta)
        if has_ended:
            self._pump(worker.model)

    def turn_done(self) -> None:
        """All that came together was delivered: each sink it touched sends it in one go."""
        touched, self._touched = self._touched, []
        for request in touched:
            request.is_touched = False
            try:
                request.sink.flush()
            except Exception:  # noqa: BLE001  # rule 3
                self._sink_failed(request)

    def request_failed(self, worker: Worker, failed: Failed) -> None:
        request = self._open.get(failed.request_id)
        if request is not None:
            self._fail(request, RequestError(failed.code, failed.message, param=failed.param))
        self._pump(worker.model)

    def room_made(self, worker: Worker) -> None:
        self._pump(worker.model)

    def worker_gone(self, worker: Worker, ending: WorkerExit) -> None:
        mine = [request for request in self._open.values() if request.worker is worker]
        for request in reversed(mine):  # each goes to the head: the oldest last
            if request.tokens == 0 and request.retries < self._retries_max:
                request.retries += 1
                request.worker = None
                self._backlog.add_first(request.ask.model, request.request_id)
            else:
                self._fail(request, _worker_failed(request))
        if mine:
            self._log.warning(
                "requests_interrupted", worker=worker.worker_id, how=str(ending),
                requests=len(mine), sent_again=sum(1 for each in mine if each.worker is None),
            )  # fmt: skip
        self._pump(worker.model)

    def slot_failed(self, slot: Slot) -> None:
        model = slot.model.name
        if self._is_served(model):
            return
        for request_id in self._backlog.waiting(model):
            self._fail(self._open[request_id], _unavailable(model))

    # --- inside

    def _check_admission(self, model: str) -> None:
        if self._is_draining:
            raise RequestError(ErrorCode.DRAINING, "the server is shutting down", retry_after_s=5.0)
        if model not in self._slots:
            raise RequestError(
                ErrorCode.MODEL_NOT_FOUND,
                f"there is no such model here; GET /v1/models lists {len(self._slots)}",
                param="model",
            )
        if not self._is_served(model):
            raise _unavailable(model)

    def _is_served(self, model: str) -> bool:
        """Whether a worker stands in some slot of the model, or will by itself."""
        over = (SlotState.FAILED, SlotState.STOPPED)
        return any(slot.state not in over for slot in self._slots[model])

    def _workers(self, model: str) -> list[Worker]:
        return [slot.worker for slot in self._slots[model] if slot.worker is not None]

    def _capacity(self, model: str) -> int:
        return sum(worker.batch_size for worker in self._workers(model))

    def _send(self, request: _Open) -> bool:
        """Give a request to a worker that has room. False: none has."""
        worker = choose(self._workers(request.ask.model))
        if worker is None:
            return False
        now_s = self._clock()
        try:
            worker.generate(
                request.request_id,
                request.ask,
                request.deadline_s - now_s,
                request.correlation_id,
            )
        except LinkFullError:
            return False
        request.worker = worker
        request.sent_s = now_s
        return True

    def _pump(self, model: str) -> None:
        """Send what waits, as long as there is room."""
        while (request_id := self._backlog.first(model)) is not None:
            request = self._open[request_id]
            if request.deadline_s <= self._clock():
                message = "the deadline of this request passed while it waited for a worker"
                self._fail(request, RequestError(ErrorCode.DEADLINE_EXCEEDED, message))
            elif self._send(request):
                self._backlog.remove(model, request_id)
            else:
                return

    def _push(self, request: _Open, delta: Delta) -> None:
        if not request.is_touched:
            request.is_touched = True
            self._touched.append(request)
        try:
            request.sink.push(delta)
        except Exception:  # noqa: BLE001  # rule 3
            self._sink_failed(request)

    def _sink_failed(self, request: _Open) -> None:
        """Called where the exception is handled: the log has its place."""
        self._log.error("sink_failed", correlation_id=request.correlation_id, exc_info=True)
        self.cancel(request.request_id, "its sink failed")
        self._tell(request, RequestError(ErrorCode.INTERNAL_ERROR, "an internal error"))

    def _fail(self, request: _Open, error: RequestError) -> None:
        self._open.pop(request.request_id, None)
        self._backlog.remove(request.ask.model, request.request_id)
        self._tell(request, error)

    def _tell(self, request: _Open, error: RequestError) -> None:
        try:
            request.sink.fail(error)
        except Exception:  # noqa: BLE001  # rule 3
            self._log.error("sink_failed", correlation_id=request.correlation_id, exc_info=True)


def _worker_failed(request: _Open) -> RequestError:
    if request.tokens:
        message = "the worker that generated this answer ended; the answer is not complete"
    else:
        message = f"{request.retries + 1} workers in a row ended on this request"
    return RequestError(ErrorCode.WORKER_FAILED, message, retry_after_s=2.0)


def _unavailable(model: str) -> RequestError:
    return RequestError(
        ErrorCode.MODEL_UNAVAILABLE,
        f"no worker serves the model {model!r}, and none will until an operator acts",
        retry_after_s=60.0,
    )
