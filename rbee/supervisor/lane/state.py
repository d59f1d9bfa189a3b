"""How a connection of the lane stands, and how long it may stay so. Pure.

Rule: each part of a request has its own time, from its begin; nothing that comes meanwhile
      lengthens it.
"""

import enum
from typing import Final

from rbee.supervisor.http_server import HttpLimits
from rbee.supervisor.lane.machine import Machine

# Once the server closes: how long after an answer a client may ask again, if it was not told that
# it was the last one; how long a request may be under way already; and how long one may still take
# to come. Who has just connected has something to say.
_NEXT_REQUEST_S: Final = 0.5
_LAST_REQUEST_S: Final = 0.05
_LAST_WHOLE_S: Final = 1.0


class State(enum.Enum):
    IDLE = enum.auto()  # between requests
    HEAD = enum.auto()  # a request's head is coming, or is expected: the first one
    BODY = enum.auto()  # its body is coming
    HELD = enum.auto()  # a whole request waits: for its turn, or to know who makes it
    ANSWERING = enum.auto()  # a generation runs
    LEAVING = enum.auto()  # the last answer was given; it is sent, and the client seen off
    GONE = enum.auto()  # closed, or handed over


RECEIVING: Final = frozenset({State.IDLE, State.HEAD, State.BODY})
AT_WORK: Final = frozenset({State.HELD, State.ANSWERING})


def receiving_state(machine: Machine) -> State:
    """What of a request is being received, where none is being answered."""
    if machine.is_in_body:
        return State.BODY
    return State.HEAD if machine.is_in_head else State.IDLE


def receiving_timeout_s(
    state: State, limits: HttpLimits, body_timeout_s: float, *, is_closing: bool
) -> float:
    """How long a connection may stay in a state of `RECEIVING`."""
    if state is State.IDLE:
        return _NEXT_REQUEST_S if is_closing else limits.keep_alive_s
    timeout_s = limits.headers_timeout_s if state is State.HEAD else body_timeout_s
    return min(timeout_s, _LAST_WHOLE_S) if is_closing else timeout_s


def closing_due_s(state: State, due_s: float, now_s: float, limits: HttpLimits) -> float:
    """Until when a connection in a state of `RECEIVING` may stay, as the server closes now.

    Args:
      due_s: until when it might have stayed.
    """
    if state is not State.IDLE:
        return min(due_s, now_s + _LAST_WHOLE_S)
    idle_since_s = due_s - limits.keep_alive_s
    return max(idle_since_s + _NEXT_REQUEST_S, now_s + _LAST_REQUEST_S)
