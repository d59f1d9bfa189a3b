"""What goes wrong in one connection stays in it.

Rule 1: no exception passes, whatever its type, but those by which trio, the interpreter or
        an operator end things.
Rule 2: the log has the exception's type and place, never its message: messages of parsers
        and apps quote what clients sent.
"""

import traceback
from types import TracebackType
from typing import Final

import trio

from rbee.logs import Log

_PASSING: Final = (trio.Cancelled, KeyboardInterrupt, GeneratorExit)
_FRAMES_MAX: Final = 6


class Bulkhead:
    """``with Bulkhead(...)``: logs and ends what its block raises."""

    __slots__ = ("_event", "_log", "_peer")

    def __init__(self, log: Log, event: str, peer: str) -> None:
        self._log = log
        self._event = event
        self._peer = peer

    def __enter__(self) -> None: ...

    def __exit__(
        self,
        _type: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> bool:
        if error is None:
            return False
        passing, failure = _split(error)
        if failure is not None:
            self._log.error(self._event, peer=self._peer, **_describe(failure))
        if passing is None:
            return True
        if failure is None:
            return False
        raise passing from None


def _split(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Take apart what must pass and what must not."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(_PASSING)
    if isinstance(error, _PASSING):
        return error, None
    return None, error


def _describe(error: BaseException) -> dict[str, str]:
    trace = error.__traceback__
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
        trace = error.__traceback__ or trace
    frames = traceback.extract_tb(trace)[-_FRAMES_MAX:]
    places = (
        f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames
    )
    kind = type(error)
    return {"error": f"{kind.__module__}.{kind.__qualname__}", "at": " > ".join(places)}
