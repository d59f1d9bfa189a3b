"""One worker: an engine process, the link to it, and the state they are in.

`worker_life` runs it, and alone calls what stands below "for `worker_life`". Every other task
may read the properties, and call `generate`, `cancel` and `drain`, which send and do not wait.
"""

import contextlib
from dataclasses import dataclass, field
from signal import SIGKILL
from typing import Final, assert_never

import trio

from rbee.ask import Ask
from rbee.config import WorkerConfig
from rbee.dialogue import OpenRequest, SupervisorDialogue
from rbee.errors import LinkFullError
from rbee.supervisor.child import Child
from rbee.supervisor.lifecycle import TAKES_REQUESTS, WorkerEvent, WorkerState, next_state
from rbee.supervisor.liveness import Judgement, LifePhase, Pace, Verdict, judge
from rbee.supervisor.vitals import Vitals
from rbee.wire import Beat, Bye, Failed, FromWorker, Hello, Loading, Ready, Step, Welcome

# The fault of a worker whose link takes nothing. It may be that it has just ended by itself.
TAKES_NOTHING: Final = "takes no messages: its queue is full"


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
    verdict: Verdict = Verdict.GONE  # what it was ended for, if it was for how it lived
    cause: str = ""  # what the kernel, or a limit of ours, has ended it for

    def __str__(self) -> str:
        if self.cause:
            return self.cause
        if self.fault:
            return self.fault
        if self.signal is not None:
            return f"ended by signal {self.signal}"
        return f"exit code {self.exit_code}" + (f": {self.said}" if self.said else "")


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """What is to stand in a slot."""

    worker_id: str
    welcome: Welcome
    pace: Pace = field(default_factory=Pace)  # of the workers that stood there before


class Worker:
    """What the rest of the supervisor may see of a worker, and ask of it."""

    def __init__(self, plan: WorkerPlan, child: Child, now_s: float) -> None:
        self.worker_id: Final = plan.worker_id
        self.model: Final = plan.welcome.model.name
        self.engine: Final = plan.welcome.model.engine
        self.pid: Final = child.pid
        self.started_s: Final = now_s
        self.child: Final = child  # for `worker_life`
        self.has_left: Final = trio.Event()  # it said Bye, or what will never be understood
        self._dialogue = SupervisorDialogue(child.secret, child.pid)
        self._state = WorkerState.STARTING
        self._vitals = Vitals(now_s, plan.pace)
        self._ready: Ready | None = None
        self._ready_s: float | None = None
        self._lost_s: float | None = None
        self._fault = ""
        self._verdict = Verdict.GONE
        self._said = ""
        self._was_asked = False
        self._has_ended = False  # the process; what it said may still come in

    @property
    def state(self) -> WorkerState:
        """Who leaves, or is being ended, is DRAINING: that may take seconds, or for ever."""
        if self._state in TAKES_REQUESTS and self._is_leaving:
            return WorkerState.DRAINING
        return self._state

    @property
    def takes_requests(self) -> bool:
        if self._state not in TAKES_REQUESTS or self._is_leaving:
            return False  # what it is sent now is lost
        return self._dialogue.open_requests < self.batch_size

    @property
    def _is_leaving(self) -> bool:
        is_ended = bool(self._fault) or self.child.was_killed.is_set()
        return is_ended or self._has_ended or self.has_left.is_set()

    @property
    def open_requests(self) -> int:
        return self._dialogue.open_requests

    def is_open(self, request_id: int) -> bool:
        """Whether it has not said its last word on a request, cancelled or not."""
        return self._dialogue.is_open(request_id)

    @property
    def batch_size(self) -> int:
        return self._ready.batch_size if self._ready is not None else 0

    @property
    def ready(self) -> Ready | None:
        """What it said when it got ready."""
        return self._ready

    def ready_for_s(self, now_s: float) -> float | None:
        """How long it has been ready, or was, before it was lost; None: it is not yet."""
        until_s = now_s if self._lost_s is None else self._lost_s
        return None if self._ready_s is None else until_s - self._ready_s

    @property
    def is_lost(self) -> bool:
        """Whether its requests go on without it, though its process is there."""
        return self._lost_s is not None

    @property
    def beat(self) -> Beat | None:
        """The last beat."""
        return self._vitals.beat

    @property
    def beats(self) -> int:
        return self._vitals.beats

    @property
    def beat_s(self) -> float:
        """When the last beat came; before the first: when the worker was started."""
        return self._vitals.beat_s

    @property
    def loading(self) -> Loading:
        return self._vitals.loading

    @property
    def judgement(self) -> Judgement:
        """How it stood with it at the last look."""
        return self._vitals.judgement

    @property
    def pace(self) -> Pace:
        """What is known of its speed, from it and from those before it."""
        return self._vitals.pace

    @property
    def last_beats(self) -> list[tuple[float, Beat]]:
        """The last beats, each with the time at which it came."""
        return list(self._vitals.last_beats)

    @property
    def requests(self) -> list[OpenRequest]:
        """What is open on it."""
        return self._dialogue.requests

    @property
    def fault(self) -> str:
        """Why its life is being ended; "" as long as it is not."""
        return self._fault

    def generate(  # noqa: PLR0913, PLR0917  # what a Generate holds
        self,
        request_id: int,
        ask: Ask,
        remaining_s: float,
        correlation_id: str,
        resume_ids: tuple[int, ...] = (),
        cache_salt: bytes = b"",
    ) -> None:
        """Send a request to it. Only while `takes_requests`.

        Args:
          resume_ids: the tokens of the answer that an earlier worker delivered.
          cache_salt: it reuses what it has kept of requests with the same one.

        Raises:
          LinkFullError: it does not take messages now; nothing was sent.
        """
        remaining_ms = max(1, int(remaining_s * 1000))
        frames = self._dialogue.generate(
            request_id, ask, remaining_ms, correlation_id, resume_ids, cache_salt
        )
        try:
            self.child.send(frames)
        except LinkFullError:
            self._dialogue.forget(request_id)
            raise
        now_s = trio.current_time()
        self._vitals.request_sent(request_id, now_s)
        if self._state is WorkerState.READY:
            self._vitals.asked_to_work(now_s)
            self._move(WorkerEvent.WORK)

    def cancel(self, request_id: int) -> None:
        """Ask it to end a request. What still comes of it is left out."""
        frames = self._dialogue.cancel(request_id)
        self._vitals.request_cancelled(request_id, trio.current_time())
        if frames is not None:
            self._send_or_kill(frames)

    def drain(self) -> None:
        """Ask it to finish what it has and to end. Asks and returns.

        Who leaves by itself, or is being ended for a fault, is not asked: that stays a failure.
        """
        if self._state in (WorkerState.DRAINING, WorkerState.GONE) or self._is_leaving:
            return
        self._was_asked = True
        was_ready = self._state in TAKES_REQUESTS
        if not self._dialogue.open_requests:  # who hangs gains no time by this
            self._vitals.asked_to_end(trio.current_time())
        self._move(WorkerEvent.DRAIN)
        # A model that is still loading is not worth waiting for.
        frames = self._dialogue.drain() if was_ready else self._dialogue.stop()
        try:
            self.child.send(frames)
        except LinkFullError:  # not connected yet, or deaf: there is no way to ask it
            self.child.kill("was to end, and takes no messages")

    # --- for `worker_life`

    def read(self, frames: list[bytes]) -> FromWorker | None:
        """The message in ``frames``. None: the last word on a cancelled request.

        Raises:
          RemoteProtocolError: it is none, or not one that may come now.
        """
        return self._dialogue.receive(frames)

    def note(self, message: FromWorker | None, now_s: float) -> None:
        """Take from a message what it tells of the worker itself."""
        match message:
            case Step():
                self._vitals.hear_step(message, now_s)
            case Failed() | None:
                self._vitals.hear_last_word(message, now_s)
            case Beat():
                self._vitals.hear_beat(message, now_s)
            case Loading():
                self._vitals.hear_loading(message, now_s)
            case Bye(reason=reason):
                self._said = reason
                self.has_left.set()
                self._vitals.asked_to_end(now_s)
            case Hello():
                self._vitals.hear_hello(now_s)
                if self._state is WorkerState.STARTING:
                    self._move(WorkerEvent.HELLO)
            case Ready():
                self._vitals.hear_ready(now_s)
                self._ready, self._ready_s = message, now_s
                if self._state is WorkerState.LOADING:
                    self._move(WorkerEvent.LOADED)
            case _:
                assert_never(message)

    def welcome(self, message: Welcome) -> None:
        """Answer its Hello."""
        self._send_or_kill(self._dialogue.welcome(message))

    def answer_bye(self) -> None:
        """Let it go: its last word was heard, and so all before it."""
        with contextlib.suppress(LinkFullError):  # it is gone already
            self.child.send(self._dialogue.stop())

    def settle(self) -> None:
        """It is idle once its last request has ended."""
        if self._state is WorkerState.BUSY and self._dialogue.open_requests == 0:
            self._move(WorkerEvent.IDLE)

    def judge(self, limits: WorkerConfig, now_s: float) -> Judgement:
        requests = sum(not each.is_cancelled for each in self.requests)
        judgement = judge(self._vitals.signs(self._life_phase(), requests), limits, now_s)
        self._vitals.judgement = judgement
        return judgement

    def excuse(self, late_s: float, now_s: float) -> None:
        """The supervisor did not run for ``late_s``: that is not held against the worker."""
        self._vitals.excuse(late_s, now_s)

    def condemn(self, judgement: Judgement) -> None:
        """It is to be killed for how it lives, when the evidence is secured."""
        if not self._fault:
            self._fault, self._verdict = judgement.reason, judgement.verdict

    def execute(self) -> None:
        """Kill what was condemned."""
        self.child.kill(self._fault)

    def end(self, fault: str) -> None:
        """End its life at once, for the first fault that is found."""
        if not self._fault:
            self._fault = fault
            self.child.kill(fault)

    def process_ended(self) -> None:
        """What it said may still come in."""
        self._has_ended = True

    def lose(self, now_s: float) -> WorkerExit:
        """It was killed, and is not gone, but nothing is to be awaited of it: its end so far."""
        self._lost_s = now_s
        return self._ending(None, SIGKILL, now_s)

    def gone(self, code: int | None, signal: int | None, now_s: float) -> WorkerExit:
        """All is over: how it ended. Where nobody waited for that, it was stopped."""
        self._was_asked = self._was_asked or not self._has_ended
        ending = self._ending(code, signal, now_s)
        self._move(WorkerEvent.EXIT)
        return ending

    def _ending(self, code: int | None, signal: int | None, now_s: float) -> WorkerExit:
        fault = self._fault
        if fault == TAKES_NOTHING and (code is not None or signal not in (None, SIGKILL)):
            fault = ""  # it was not our kill that ended it
        fault = self.child.cause or fault
        return WorkerExit(
            last_state=self._state,
            exit_code=code,
            signal=signal,
            fault=fault,
            said=self._said,
            was_asked=self._was_asked,
            ready_for_s=self.ready_for_s(now_s),
            verdict=self._verdict,
            cause=self.child.cause,
        )

    def _send_or_kill(self, frames: list[bytes]) -> None:
        try:
            self.child.send(frames)
        except LinkFullError:
            self.end(TAKES_NOTHING)

    def _move(self, event: WorkerEvent) -> None:
        self._state = next_state(self._state, event)

    def _life_phase(self) -> LifePhase:
        match self._state:
            case WorkerState.STARTING:
                return LifePhase.STARTING
            case WorkerState.LOADING:
                return LifePhase.LOADING
            case WorkerState.GONE:
                return LifePhase.GONE
            case _ if self.open_requests:
                return LifePhase.WORKING
            case _:
                is_to_end = self._state is WorkerState.DRAINING or self.has_left.is_set()
                return LifePhase.LEAVING if is_to_end else LifePhase.SERVING
