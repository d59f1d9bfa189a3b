"""A request that was admitted and has not ended, and where its answer goes."""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from rbee.ask import Ask
from rbee.errors import RequestError
from rbee.rate_limits import Priority
from rbee.supervisor.failover import Course
from rbee.supervisor.worker import Worker
from rbee.wire import Delta


class Sink(Protocol):
    """Where the answer to one ask goes. Must not block."""

    def push(self, delta: Delta) -> None: ...

    def flush(self, now_s: float) -> None:
        """Send what was pushed in this turn of the receiver."""
        ...

    def fail(self, error: RequestError) -> None: ...


@runtime_checkable
class FailoverSink(Protocol):
    """A sink that wants to know how often its answer changed workers."""

    def moved(self) -> None:
        """The worker has ended; another goes on. Nothing that was pushed comes again."""
        ...


@dataclass(slots=True, eq=False)
class OpenRequest:
    """What the pool knows of a request. Written by `Pool` and `Dispatch` alone."""

    request_id: int
    ask: Ask
    sink: Sink
    deadline_s: float
    correlation_id: str
    priority: Priority
    cache_salt: bytes = b""  # its client's, whichever worker it is sent to
    course: Course = field(default_factory=Course)
    fingerprint: bytes | None = None  # None: nobody wanted it yet
    worker: Worker | None = None  # None: it waits
    # Its number on the link: one for each sending, as the worker that it was taken away from
    # may not have forgotten it yet when it is sent there again.
    wire_id: int = 0
    admitted_s: float = 0.0
    waits_since_s: float = 0.0
    sent_s: float = 0.0
    tokens: int = 0  # that it may take, as the backlog counts them
    is_touched: bool = False  # its sink has what was not flushed


def likeliest_last(suspects: list[OpenRequest]) -> list[OpenRequest]:
    """Each goes to the head of its line, so the last is the first that works apart.

    That is the one which had brought the fewest tokens when the worker ended, of those the
    newest: if it is guilty it is found at once, and the others need not be heard.
    """
    return sorted(suspects, key=lambda request: -request.course.tokens_here)
