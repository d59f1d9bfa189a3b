"""What happened in a simulation, in order: kept as a hash of all and the end in words.

Rule: what is noted is a function of the seed alone. So no id that was drawn from the system's
random source, no address and no time of a real clock gets in here.
"""

import traceback
import zlib
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import trio

_events_kept: int | None = 400

# A simulation that does so much without time passing goes round in circles.
EVENTS_AT_ONCE_MAX: Final = 20_000

# Fields of log events that hang on secrets, which are drawn anew in each run.
_SECRET: Final = frozenset({"fingerprint", "exc_info"})


def keep_all_events() -> None:
    """For whoever reads a whole history; it may be some MiB."""
    global _events_kept  # noqa: PLW0603  # one command sets it, before it begins
    _events_kept = None


LogHook = Callable[[str, dict[str, Any]], None]


class Stuck(Exception):
    """Time does not pass any more."""


class Trace:
    """Implements `rbee.logs.Log` too: what is logged is part of what happened."""

    def __init__(self) -> None:
        self.events: deque[str] = deque(maxlen=_events_kept)
        self.violations: list[str] = []
        self.count = 0
        self.on_log: LogHook = lambda _event, _fields: None
        self.on_violation: Callable[[], None] = lambda: None
        self._hash = 0
        self._time_s = -1.0
        self._at_once = 0

    @property
    def digest(self) -> str:
        return f"{self.count}-{self._hash:08x}"

    def note(self, text: str) -> None:
        if self.violations:
            return  # what comes now is the end of the simulation, not of the history
        now_s = trio.current_time()
        line = f"{now_s:12.6f} {text}"
        self._hash = zlib.crc32(line.encode(), self._hash)
        self.count += 1
        self.events.append(line)
        if now_s != self._time_s:
            self._time_s, self._at_once = now_s, 0
        self._at_once += 1
        if self._at_once > EVENTS_AT_ONCE_MAX:
            raise Stuck(f"{EVENTS_AT_ONCE_MAX} events at {now_s:.6f} s")

    def violation(self, text: str) -> None:
        """An invariant does not hold: the simulation ends here."""
        if not self.violations:
            self.note(f"VIOLATION {text}")
        self.violations.append(text)
        self.on_violation()

    def expect(self, holds: bool, text: str) -> None:
        if not holds:
            self.violation(text)

    def debug(self, event: str, **fields: Any) -> None:
        told = " ".join(f"{key}={fields[key]}" for key in fields if key not in _SECRET)
        self.note(f"log {event} {told}")
        if event == "sink_failed":
            self.violation(f"a sink failed: {traceback.format_exc(limit=-4)}")
        self.on_log(event, fields)

    info = warning = error = debug
