"""The states of one worker process, and the only moves between them.

Rule 1: every move that a worker can make stands in `TRANSITIONS`.
Rule 2: nothing here awaits, reads a clock or knows a process. `worker.py` does.
"""

import enum
from collections.abc import Mapping
from typing import Final


class WorkerState(enum.Enum):
    STARTING = "starting"  # spawned, has not said hello
    LOADING = "loading"  # said hello, model not in memory yet
    READY = "ready"  # takes requests, has none
    BUSY = "busy"  # works on requests, may take more
    DRAINING = "draining"  # finishes what it has, takes nothing new
    GONE = "gone"  # reaped; terminal


class WorkerEvent(enum.Enum):
    HELLO = "hello"
    LOADED = "loaded"
    WORK = "work"  # the first request was sent to it
    IDLE = "idle"  # its last open request has ended
    DRAIN = "drain"
    EXIT = "exit"


TRANSITIONS: Final[Mapping[WorkerState, Mapping[WorkerEvent, WorkerState]]] = {
    WorkerState.STARTING: {
        WorkerEvent.HELLO: WorkerState.LOADING,
        WorkerEvent.DRAIN: WorkerState.DRAINING,
        WorkerEvent.EXIT: WorkerState.GONE,
    },
    WorkerState.LOADING: {
        WorkerEvent.LOADED: WorkerState.READY,
        WorkerEvent.DRAIN: WorkerState.DRAINING,
        WorkerEvent.EXIT: WorkerState.GONE,
    },
    WorkerState.READY: {
        WorkerEvent.WORK: WorkerState.BUSY,
        WorkerEvent.DRAIN: WorkerState.DRAINING,
        WorkerEvent.EXIT: WorkerState.GONE,
    },
    WorkerState.BUSY: {
        WorkerEvent.IDLE: WorkerState.READY,
        WorkerEvent.DRAIN: WorkerState.DRAINING,
        WorkerEvent.EXIT: WorkerState.GONE,
    },
    WorkerState.DRAINING: {WorkerEvent.EXIT: WorkerState.GONE},
    WorkerState.GONE: {},
}

TAKES_REQUESTS: Final = frozenset({WorkerState.READY, WorkerState.BUSY})


class IllegalMove(AssertionError):
    """A state was sent an event it has no move for. A bug in rbee, never in a worker."""


def next_state(state: WorkerState, event: WorkerEvent) -> WorkerState:
    """The state after ``event``.

    Raises:
      IllegalMove: there is no such move.
    """
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise IllegalMove(f"{state.name} has no move for {event.name}") from None
