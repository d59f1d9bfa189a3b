"""One worker: an engine process, the link to it, and the state they are in.

The functions of this file are the only writers of a `Worker`. Every other task may read its
properties, and call `generate`, `cancel` and `drain`, which send and do not wait.

Rule 1: that the process ended is seen by its pidfd (`Child.wait_exit`), never by silence.
Rule 2: silence, a stalled load and nonsense on the link are faults: the process is killed,
        at once, and its end is judged like any other.
"""

from collections.abc import Callable
from dataclasses import dataclass
from signal import SIGKILL
from typing import Final, Protocol, assert_never

import trio

from rbee.ask import Ask
from rbee.config import WorkerConfig
from rbee.dialogue import SupervisorDialogue
from rbee.errors import LinkFullError, RemoteProtocolError
from rbee.supervisor.child import Child, Launch
from rbee.supervisor.lifecycle import TAKES_REQUESTS, WorkerEvent, WorkerState, next_state
from rbee.supervisor.liveness import LifePhase, Signs, judge
from rbee.wire import Beat, Bye, Failed, FromWorker, Hello, Loading, Phase, Ready, Step, Welcome

# The watch sleeps at most this long. Waking far later means that the supervisor itself was
# suspended: then the silence was ours, and no worker is judged by it.
WATCH_EVERY_S: Final = 1.0
SUSPENDED_AFTER_S: Final = 2.0

# What a worker said before it ended may still be on its way: its last tokens, and why it ended.
LAST_WORDS_S: Final = 0.02

# The fault of a worker whose link takes nothing. It may be that it has just ended by itself.
TAKES_NOTHING: Final = "takes no messages: its queue is full"

# What one receiver takes before it lets the other tasks run, counted in deltas; a message costs
# as much as so many of them. All that one stream gets in a turn leaves in one send.
TURN_COST_MAX: Final = 2048
MESSAGE_COST: Final = 128


@dataclass(frozen=True, slots=True)
class WorkerExit:
    """How a worker ended. Expected endings are values, not exceptions."""

    last_state: WorkerState  # where it stood when it ended
    exit_code: int | None  # None: a signal ended it
    signal: int | None
    fault: str  # why we ended it; "" if it was not we, or it was asked to
    said: str  # the reason in its Bye, "" without one
    was_asked: bool  # drained or stopped on purpose
    ready_for_s: float | None  # None: never ready

    def __str__(self) -> str:
        if self.fault:
            return self.fault
        if self.signal is not None:
            return f"ended by signal {self.signal}"
        return f"exit code {self.exit_code}" + (f": {self.said}" if self.said else "")


class Delivery(Protocol):
    """Who hears what comes of a worker; synchronous, from the worker's receiver task."""

    def worker_ready(self, worker: "Worker") -> None: ...

    def step_done(self, worker: "Worker", step: Step) -> None: ...

    def request_failed(self, worker: "Worker", failed: Failed) -> None: ...

    def room_made(self, worker: "Worker") -> None:
        """A cancelled request has left the worker."""
        ...

    def turn_done(self) -> None:
        """All that had come in together was delivered."""
        ...

    def worker_gone(self, worker: "Worker", ending: WorkerExit) -> None: ...


class Worker:
    """What the rest of the supervisor may see of a worker, and ask of it."""

    def __init__(self, worker_id: str, model: str, child: Child, now_s: float) -> None:
        self.worker_id: Final = worker_id
        self.model: Final = model
        self.pid: Final = child.pid
        self.started_s: Final = now_s
        self._judged_from_s = now_s  # as ``started_s``, less the time we were suspended
        self._child = child
        self._dialogue = SupervisorDialogue(child.secret, child.pid)
        self._state = WorkerState.STARTING
        self._ready: Ready | None = None
        self._ready_s: float | None = None
        self._loading = Loading(Phase.IMPORTING, 0.0)
        self._progress_s = now_s
        self._beat: Beat | None = None
        self._beat_s = now_s
        self._beats = 0
        self._fault = ""
        self._said = ""
        self._was_asked = False
        self._has_ended = False  # the process; what it said may still come in
        self._has_left = trio.Event()  # it said Bye, or what will never be understood

    @property
    def state(self) -> WorkerState:
        return self._state

    @property
    def takes_requests(self) -> bool:
        if self._has_ended or self._has_left.is_set() or self._fault:
            return False  # the process may take seconds to go: what it is sent now is lost
        if self._state not in TAKES_REQUESTS:
            return False
        return self._dialogue.open_requests < self.batch_size

    @property
    def open_requests(self) -> int:
        return self._dialogue.open_requests

    @property
    def batch_size(self) -> int:
        return self._ready.batch_size if self._ready is not None else 0

    @property
    def ready(self) -> Ready | None:
        """What it said when it got ready."""
        return self._ready

    @property
    def beat(self) -> Beat | None:
        """The last beat."""
        return self._beat

    @property
    def beats(self) -> int:
        return self._beats

    @property
    def beat_s(self) -> float:
        """When the last beat came; before the first: when the worker was started."""
        return self._beat_s

    @property
    def loading(self) -> Loading:
        return self._loading

    def generate(self, request_id: int, ask: Ask, remaining_s: float, correlation_id: str) -> None:
        """Send a request to it. Only while `takes_requests`.

        Raises:
          LinkFullError: it does not take messages now; nothing was sent.
        """
        frames = self._dialogue.generate(
            request_id, ask, max(1, int(remaining_s * 1000)), correlation_id
        )
        try:
            self._child.send(frames)
        except LinkFullError:
            self._dialogue.forget(request_id)
            raise
        if self._state is WorkerState.READY:
            self._progress_s = trio.current_time()
            self._move(WorkerEvent.WORK)

    def cancel(self, request_id: int) -> None:
        """Ask it to end a request. What still comes of it is left out."""
        frames = self._dialogue.cancel(request_id)
        if frames is not None:
            self._send_or_kill(frames)

    def drain(self) -> None:
        """Ask it to finish what it has and to end. Asks and returns."""
        if self._state in (WorkerState.DRAINING, WorkerState.GONE):
            return
        self._was_asked = True
        was_ready = self._state in TAKES_REQUESTS
        self._progress_s = trio.current_time()
        self._move(WorkerEvent.DRAIN)
        # A model that is still loading is not worth waiting for.
        frames = self._dialogue.drain() if was_ready else self._dialogue.stop()
        try:
            self._child.send(frames)
        except LinkFullError:  # not connected yet, or deaf: there is no way to ask it
            self._child.kill("was to end, and takes no messages")

    def _send_or_kill(self, frames: list[bytes]) -> None:
        try:
            self._child.send(frames)
        except LinkFullError:
            self._end(TAKES_NOTHING)

    def _end(self, fault: str) -> None:
        if not self._fault:
            self._fault = fault
            self._child.kill(fault)

    def _move(self, event: WorkerEvent) -> None:
        self._state = next_state(self._state, event)


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """What is to stand in a slot."""

    worker_id: str
    welcome: Welcome


async def run_worker(
    launch: Launch,
    plan: WorkerPlan,
    limits: WorkerConfig,
    delivery: Delivery,
    hold: Callable[[Worker], None],
) -> WorkerExit:
    """Own one worker from spawn to reap.

    Hands the `Worker` to ``hold`` as soon as it exists, still STARTING. Cancelling this
    function stops the process by the ladder and returns only when it is reaped and
    ``delivery`` has heard that it is gone.

    Returns:
      How the worker ended, also when it never got ready or could not be started.
    """
    worker: Worker | None = None
    ended: tuple[int | None, int | None] = (None, None)
    try:
        async with trio.open_nursery() as nursery:
            try:
                child: Child = await nursery.start(launch, plan.worker_id)
            except OSError as error:
                return _not_started(error)
            worker = Worker(plan.worker_id, plan.welcome.model.name, child, trio.current_time())
            hold(worker)
            nursery.start_soon(_receive, worker, plan, delivery)
            nursery.start_soon(_watch, worker, limits)
            ended = await child.wait_exit()
            worker._has_ended = True
            with trio.move_on_after(LAST_WORDS_S):
                await worker._has_left.wait()
            nursery.cancel_scope.cancel(reason="the worker process ended")
    finally:
        if worker is not None:
            ending = _gone(worker, *ended)
            delivery.worker_gone(worker, ending)
    return ending


def _not_started(error: OSError) -> WorkerExit:
    return WorkerExit(
        last_state=WorkerState.STARTING,
        exit_code=None,
        signal=None,
        fault=f"cannot be started: {error.strerror}",
        said="",
        was_asked=False,
        ready_for_s=None,
    )


def _gone(worker: Worker, code: int | None, signal: int | None) -> WorkerExit:
    last_state = worker._state
    ready_for_s = None if worker._ready_s is None else trio.current_time() - worker._ready_s
    worker._move(WorkerEvent.EXIT)
    fault = worker._fault
    if fault == TAKES_NOTHING and (code is not None or signal not in (None, SIGKILL)):
        fault = ""  # it was not our kill that ended it
    return WorkerExit(
        last_state=last_state,
        exit_code=code,
        signal=signal,
        fault=fault,
        said=worker._said,
        was_asked=worker._was_asked,
        ready_for_s=ready_for_s,
    )


async def _receive(worker: Worker, plan: WorkerPlan, delivery: Delivery) -> None:
    """Take what the worker says, in order; end its life if it is nonsense."""
    try:
        while True:
            frames = await worker._child.receive()
            try:
                is_more = _take_turn(worker, frames, plan, delivery)
            finally:
                delivery.turn_done()
            if is_more:
                await trio.lowlevel.checkpoint()
    except RemoteProtocolError as error:
        worker._end(f"broke the protocol: {error}")
        worker._has_left.set()
    except trio.ClosedResourceError:
        worker._has_left.set()  # `launch` is done with it


def _take_turn(
    worker: Worker, frames: list[bytes] | None, plan: WorkerPlan, delivery: Delivery
) -> bool:
    """Take what is there, as far as one turn goes. True: there may be more."""
    spent = 0
    while frames is not None:
        message = worker._dialogue.receive(frames)
        _take(worker, message, plan, delivery)
        spent += MESSAGE_COST + (len(message.deltas) if isinstance(message, Step) else 0)
        if spent >= TURN_COST_MAX:
            return True
        frames = worker._child.receive_nowait()
    return False


def _take(worker: Worker, message: FromWorker | None, plan: WorkerPlan, delivery: Delivery) -> None:
    match message:
        case Step():
            worker._progress_s = trio.current_time()
            delivery.step_done(worker, message)
            _settle(worker)
        case Failed():
            worker._progress_s = trio.current_time()
            delivery.request_failed(worker, message)
            _settle(worker)
        case None:  # the last word on a cancelled request
            worker._progress_s = trio.current_time()
            _settle(worker)
            delivery.room_made(worker)
        case Beat():
            _take_beat(worker, message, trio.current_time())
        case Bye(reason=reason):
            worker._said = reason
            worker._has_left.set()
        case Hello() | Loading() | Ready():
            _take_loading(worker, message, plan, delivery)
        case _:
            assert_never(message)


def _take_beat(worker: Worker, beat: Beat, now_s: float) -> None:
    told = worker._beat
    worker._beat, worker._beat_s = beat, now_s
    worker._beats += 1
    # A long prompt is read in many steps that bring no token, and a worker that drains may do
    # so too. Steps that were to bring tokens and did not are no progress.
    may_be_prefill = beat.phase in (Phase.PREFILL, Phase.DRAINING)
    if may_be_prefill and told is not None and beat.step > told.step:
        worker._progress_s = now_s


def _take_loading(
    worker: Worker, message: Hello | Loading | Ready, plan: WorkerPlan, delivery: Delivery
) -> None:
    now_s = trio.current_time()
    match message:
        case Hello():
            if worker._state is WorkerState.STARTING:
                worker._move(WorkerEvent.HELLO)
            worker._progress_s = worker._beat_s = now_s
            worker._send_or_kill(worker._dialogue.welcome(plan.welcome))
        case Loading(phase=phase, fraction=fraction):
            told = worker._loading
            if phase is not told.phase or fraction > told.fraction:
                worker._progress_s = now_s
            worker._loading = message
        case Ready():
            worker._ready, worker._ready_s = message, now_s
            worker._progress_s = now_s
            if worker._state is WorkerState.LOADING:
                worker._move(WorkerEvent.LOADED)
                delivery.worker_ready(worker)
        case _:
            assert_never(message)


def _settle(worker: Worker) -> None:
    if worker._state is WorkerState.BUSY and worker._dialogue.open_requests == 0:
        worker._move(WorkerEvent.IDLE)


async def _watch(worker: Worker, limits: WorkerConfig) -> None:
    """Judge the worker by what it says and when; end its life at the first fault."""
    while not worker._fault:
        now_s = trio.current_time()
        signs = Signs(
            _life_phase(worker), worker._judged_from_s, worker._beat_s, worker._progress_s
        )
        fault, due_s = judge(signs, limits, now_s)
        if fault:
            worker._end(fault)
            return
        wake_s = min(due_s, now_s + WATCH_EVERY_S)
        await trio.sleep_until(wake_s)
        now_s = trio.current_time()
        if (late_s := now_s - wake_s) > SUSPENDED_AFTER_S:
            # What it said meanwhile may have been taken already: nothing comes from the future.
            worker._judged_from_s = min(now_s, worker._judged_from_s + late_s)
            worker._beat_s = min(now_s, worker._beat_s + late_s)
            worker._progress_s = min(now_s, worker._progress_s + late_s)


def _life_phase(worker: Worker) -> LifePhase:
    match worker._state:
        case WorkerState.STARTING:
            return LifePhase.STARTING
        case WorkerState.LOADING:
            return LifePhase.LOADING
        case WorkerState.DRAINING if not worker.open_requests:
            return LifePhase.LEAVING
        case _:
            return LifePhase.WORKING if worker.open_requests else LifePhase.SERVING
