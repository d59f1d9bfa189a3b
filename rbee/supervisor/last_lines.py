"""The last lines of the log about each worker, for crash reports. A `Log` that passes all on.

What a worker prints comes through here too, as ``worker_output``: the stacks of its threads
among it, when it crashes or is asked for them.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from rbee.logs import Log

LINES_MAX: Final = 200  # of each worker
LINE_CHARS_MAX: Final = 2048


@dataclass(frozen=True, slots=True)
class Line:
    time_s: float  # since 1970
    text: str


class LastLines:
    """Keeps what bears a field ``worker``, by its value."""

    def __init__(self, log: Log, clock: Callable[[], float] = time.time) -> None:
        self._log = log
        self._clock = clock
        self._lines: dict[str, deque[Line]] = {}
        self._counts: dict[str, int] = {}

    def of(self, worker_id: str) -> list[Line]:
        """The last lines about a worker, the oldest first."""
        return list(self._lines.get(worker_id, ()))

    def count(self, worker_id: str) -> int:
        """How many lines there were, those included that are not kept any more."""
        return self._counts.get(worker_id, 0)

    def since(self, worker_id: str, count: int) -> list[Line]:
        """What was added since there were ``count`` lines, as far as it is kept."""
        added = self.count(worker_id) - count
        return self.of(worker_id)[-added:] if added > 0 else []

    def forget(self, worker_id: str) -> None:
        self._lines.pop(worker_id, None)

    def debug(self, event: str, **fields: Any) -> None:  # noqa: ANN401
        self._log.debug(event, **fields)

    def info(self, event: str, **fields: Any) -> None:  # noqa: ANN401
        self._keep(event, fields)
        self._log.info(event, **fields)

    def warning(self, event: str, **fields: Any) -> None:  # noqa: ANN401
        self._keep(event, fields)
        self._log.warning(event, **fields)

    def error(self, event: str, **fields: Any) -> None:  # noqa: ANN401
        self._keep(event, fields)
        self._log.error(event, **fields)

    def _keep(self, event: str, fields: dict[str, Any]) -> None:
        worker_id = fields.get("worker")
        if not isinstance(worker_id, str):
            return
        line = Line(self._clock(), _text(event, fields)[:LINE_CHARS_MAX])
        self._lines.setdefault(worker_id, deque(maxlen=LINES_MAX)).append(line)
        self._counts[worker_id] = self.count(worker_id) + 1


def _text(event: str, fields: dict[str, Any]) -> str:
    if event == "worker_output":
        return str(fields.get("line", ""))
    told = " ".join(f"{key}={value}" for key, value in fields.items() if key != "worker")
    return f"[{event}] {told}"
