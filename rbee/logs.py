"""Logs: one line per event, to stderr; JSON on a pipe, readable on a terminal.

Rule 1: an event is a name in lower_snake_case; what happened to whom stands in its fields.
Rule 2: no prompt, no answer, no secret. Control characters are escaped by the renderer.
Rule 3: whoever logs never waits: a reader of stderr that stalls, or a full disk behind it,
        must not stop the supervisor. Lines that find no room are counted, and told later.
"""

import atexit
import contextlib
import io
import os
import queue
import sys
import threading
import time
from typing import Any, Final, Protocol, TextIO, cast

import msgspec

from rbee.config import LogConfig
from rbee.threads import thread_refusals

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}

# Lines that wait for a slow reader: some MiB, and minutes of an ordinary server's log.
WAITING_LINES_MAX: Final = 10_000

# After a line the thread waits so long for more, and writes them together: to wake it for each
# line would cost whoever logs more than the line.
GATHER_S: Final = 0.005
BATCH_LINES_MAX: Final = 1000

# What is still waiting when the process ends gets so long to leave.
CLOSE_TIMEOUT_S: Final = 1.0

_STDERR: Final = 2


class Log(Protocol):
    """What the rest of rbee uses of a logger."""

    def debug(self, event: str, **fields: Any) -> Any: ...  # noqa: ANN401

    def info(self, event: str, **fields: Any) -> Any: ...  # noqa: ANN401

    def warning(self, event: str, **fields: Any) -> Any: ...  # noqa: ANN401

    def error(self, event: str, **fields: Any) -> Any: ...  # noqa: ANN401


class LineWriter(io.TextIOBase):
    """Writes lines to a descriptor from a thread of its own. `write` never waits or raises."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._waiting: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        if self._waiting.qsize() < WAITING_LINES_MAX:
            self._waiting.put(text)
        else:
            self._dropped += 1
        return len(text)

    @property
    def waiting(self) -> int:
        """Lines that have not left."""
        return self._waiting.qsize()

    def close(self) -> None:
        """Let what waits leave, for `CLOSE_TIMEOUT_S` at most."""
        self._waiting.put(None)
        self._thread.join(CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        told = lost = 0
        is_open = True
        while is_open:
            lines = [self._waiting.get()]
            time.sleep(GATHER_S)
            with contextlib.suppress(queue.Empty):
                while lines[-1] is not None and len(lines) < BATCH_LINES_MAX:
                    lines.append(self._waiting.get_nowait())
            is_open = lines[-1] is not None
            text = "".join(line for line in lines if line is not None)
            if not self._write_all(text):
                lost += text.count("\n")
            # Only `write` adds to the count and only this thread remembers what it has told.
            gone = self._dropped + lost
            notice = f'{{"event": "log_lines_dropped", "lines": {gone - told}}}\n'
            if gone > told and self._write_all(notice):
                told = gone

    def _write_all(self, text: str) -> bool:
        """False: the reader is gone, or the disk is full. Of the lines some may have left."""
        data = text.encode("utf-8", "replace")
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:
            return False
        return True


def open_log(config: LogConfig) -> Log:
    """Set up logging for this process.

    Raises:
      OSError: no thread can be started for it.
    """
    import structlog  # noqa: PLC0415  # 130 ms that `rbee --help` need not pay

    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    as_text = config.format == "text" or (config.format == "auto" and is_terminal)
    shared: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=not as_text),
    ]
    if as_text:
        renderer: list[Any] = [_escape_controls, structlog.dev.ConsoleRenderer(colors=is_terminal)]
    else:
        renderer = [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(_to_json),
        ]
    with thread_refusals():
        writer = LineWriter(_STDERR)
    atexit.register(writer.close)
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[config.level]),
        logger_factory=structlog.WriteLoggerFactory(file=cast(TextIO, writer)),
        cache_logger_on_first_use=True,
    )
    log: Log = structlog.get_logger()
    return log


def _to_json(event: object, **_options: object) -> str:
    return msgspec.json.encode(event, enc_hook=repr).decode()


def _escape_controls(_logger: object, _method: str, event: Any) -> Any:  # noqa: ANN401
    """Keep what a worker printed from moving the operator's cursor."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[key] = value.encode("unicode_escape").decode("ascii")
    return event
