"""One worker's life, from spawn to reap: the tasks that run a `Worker`.

Rule 1: that the process ended is seen by its pidfd (`Child.wait_exit`), never by silence.
Rule 2: silence, a stalled load and nonsense on the link are faults: the process is killed,
        at once, and its end is judged like any other.
"""

from collections.abc import Callable
from typing import Final, Protocol

import trio

from rbee.config import WorkerConfig
from rbee.errors import RemoteProtocolError
from rbee.supervisor.child import Child, Launch
from rbee.supervisor.lifecycle import WorkerState
from rbee.supervisor.worker import Worker, WorkerExit, WorkerPlan
from rbee.wire import Bye, Failed, FromWorker, Hello, Ready, Step

# The watch sleeps at most this long. Waking later means that the supervisor itself was busy or
# suspended: then the silence was ours, and no worker is judged by it.
WATCH_EVERY_S: Final = 1.0
LATE_AFTER_S: Final = 0.2

# A process that was killed is mostly gone within milliseconds. Where much memory is to be given
# back, or a driver hangs, it is not, and what it worked on goes on without it.
LOST_AFTER_S: Final = 1.0

# What is kept of a worker that is to be killed is asked of itself, but not for long.
EVIDENCE_S_MAX: Final = 0.15

# What a worker said before it ended may still be on its way. Who leaves in order is heard to the
# end in any case (its Bye is answered); of who is killed, tokens that come later are made again.
LAST_WORDS_S: Final = 0.003

# What one receiver takes before its streams are sent what came, counted in deltas; a message
# costs as much as so many of them. All that one stream gets in a turn leaves in one send.
TURN_COST_MAX: Final = 2048
MESSAGE_COST: Final = 128

# After so long the other tasks run, also within a turn: a step of 500 streams takes about that.
TAKING_S_MAX: Final = 0.001


class Delivery(Protocol):
    """Who hears what comes of a worker; synchronous, from the worker's receiver task."""

    def worker_ready(self, worker: Worker) -> None: ...

    def step_done(self, worker: Worker, step: Step) -> None: ...

    def request_failed(self, worker: Worker, failed: Failed) -> None: ...

    def room_made(self, worker: Worker) -> None:
        """A cancelled request has left the worker."""
        ...

    def turn_done(self) -> bool:
        """All that had come in together was delivered. True: to be called again."""
        ...

    def worker_gone(self, worker: Worker, ending: WorkerExit) -> None:
        """It works on nothing any more. Said once; where it is lost, before its process ends."""
        ...


class Evidence(Protocol):
    """Who keeps what shows why a worker is killed."""

    async def secure(self, worker: Worker) -> None:
        """Take what will be gone with the process. Cancelled after `EVIDENCE_S_MAX`."""
        ...


async def run_worker(  # noqa: PLR0913, PLR0917  # all that a worker has to do with, once each
    launch: Launch,
    plan: WorkerPlan,
    limits: WorkerConfig,
    delivery: Delivery,
    hold: Callable[[Worker], None],
    evidence: Evidence | None = None,
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
                return not_started(_problem(error))
            worker = Worker(plan, child, trio.current_time())
            hold(worker)
            nursery.start_soon(_hear, worker, plan, delivery)
            nursery.start_soon(_watch, worker, limits, evidence)
            ended = await child.wait_exit()
            worker.process_ended()
            with trio.move_on_after(LAST_WORDS_S):
                await worker.has_left.wait()
            nursery.cancel_scope.cancel(reason="the worker process ended")
    finally:
        if worker is not None:
            ending = worker.gone(*ended, trio.current_time())
            if not worker.is_lost:
                delivery.worker_gone(worker, ending)
    return ending


def not_started(reason: str, *, cause: str = "") -> WorkerExit:
    """The end of a worker that there never was."""
    return WorkerExit(
        last_state=WorkerState.STARTING,
        exit_code=None,
        signal=None,
        fault=f"cannot be started: {reason}",
        said="",
        was_asked=False,
        ready_for_s=None,
        cause=cause,
    )


async def _hear(worker: Worker, plan: WorkerPlan, delivery: Delivery) -> None:
    """Take what the worker says, to its end, or until it is lost."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_receive, worker, plan, delivery)
        await worker.child.was_killed.wait()
        await trio.sleep(LOST_AFTER_S)
        nursery.cancel_scope.cancel(reason="its process was killed, and does not end")
    delivery.worker_gone(worker, worker.lose(trio.current_time()))


def _problem(error: OSError) -> str:
    problem = error.strerror or str(error)
    return problem if error.filename is None else f"{problem}: {error.filename}"


async def _receive(worker: Worker, plan: WorkerPlan, delivery: Delivery) -> None:
    """Take what the worker says, in order; end its life if it is nonsense."""
    try:
        while True:
            frames = await worker.child.receive()
            try:
                await _take_turn(worker, frames, plan, delivery)
                while delivery.turn_done():
                    await trio.lowlevel.checkpoint()
            finally:  # also where this ends in between: nothing that was pushed stays
                while delivery.turn_done():
                    pass
    except RemoteProtocolError as error:
        worker.end(f"broke the protocol: {error}")
        worker.has_left.set()
    except trio.ClosedResourceError:
        worker.has_left.set()  # `launch` is done with it


async def _take_turn(
    worker: Worker, frames: list[bytes] | None, plan: WorkerPlan, delivery: Delivery
) -> None:
    """Take what is there, as far as one turn goes. Cancelling it loses no message."""
    spent, until_s = 0, trio.current_time() + TAKING_S_MAX
    while frames is not None:
        message = worker.read(frames)
        _take(worker, message, plan, delivery)
        spent += MESSAGE_COST + (len(message.deltas) if isinstance(message, Step) else 0)
        is_over = spent >= TURN_COST_MAX
        if is_over or trio.current_time() >= until_s:
            await trio.lowlevel.checkpoint()
            until_s = trio.current_time() + TAKING_S_MAX
        frames = None if is_over else worker.child.receive_nowait()


def _take(worker: Worker, message: FromWorker | None, plan: WorkerPlan, delivery: Delivery) -> None:
    worker.note(message, trio.current_time())
    match message:
        case Step():
            delivery.step_done(worker, message)
            worker.settle()
        case Failed():
            delivery.request_failed(worker, message)
            worker.settle()
        case None:  # the last word on a cancelled request
            worker.settle()
            delivery.room_made(worker)
        case Hello():
            worker.welcome(plan.welcome)
        case Bye():
            worker.answer_bye()
        case Ready() if worker.state is WorkerState.READY:
            delivery.worker_ready(worker)
        case _:  # what concerns the worker alone was noted
            pass


async def _watch(worker: Worker, limits: WorkerConfig, evidence: Evidence | None) -> None:
    """Judge the worker by what it says and when; end its life at the first fault."""
    wake_s = worker.started_s
    while not worker.fault and not worker.child.was_killed.is_set():
        now_s = trio.current_time()
        if (late_s := now_s - wake_s) > LATE_AFTER_S:
            worker.excuse(late_s, now_s)
        judgement = worker.judge(limits, now_s)
        if judgement.is_fatal:
            worker.condemn(judgement)
            if evidence is not None:
                with trio.move_on_after(EVIDENCE_S_MAX):
                    await evidence.secure(worker)
            worker.execute()
            return
        wake_s = min(judgement.look_again_s, now_s + WATCH_EVERY_S)
        await trio.sleep_until(wake_s)
