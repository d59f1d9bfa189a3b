"""Logs: one line per event, to stderr; JSON on a pipe, readable on a terminal.

Rule 1: an event is a name in lower_snake_case; what happened to whom stands in its fields.
Rule 2: no prompt, no answer, no secret. What is not printable is escaped, and what is long is
        clipped, whoever it came from: a line stays a line, and moves nobody's cursor.
Rule 3: whoever logs never waits: a reader of stderr that stalls, or a full disk behind it,
        must not stop the supervisor. Lines that find no room are counted, and told later.
"""

import atexit
import contextlib
import io
import json
import os
import queue
import sys
import threading
import time
import traceback
from datetime import UTC, datetime
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

# Of a field; tracebacks have more. A worker's line of output is as long at most.
TEXT_MAX: Final = 4096
TRACEBACK_MAX: Final = 32 * 1024
USUAL_BYTES: Final = 4096  # a line up to here has no field that is too long

_DELETE: Final = b"\x7f"  # the one control character that JSON does not escape

_STDERR: Final = 2

_encode: Final = msgspec.json.Encoder(enc_hook=repr).encode


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
        self._waiting: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        self.write_line(text.encode("utf-8", "replace"))
        return len(text)

    def write_line(self, line: bytes) -> None:
        if self._waiting.qsize() < WAITING_LINES_MAX:
            self._waiting.put(line)
        else:
            self._dropped += 1

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
            data = b"".join(line for line in lines if line is not None)
            if not self._write_all(data):
                lost += data.count(b"\n")
            # Only `write` adds to the count and only this thread remembers what it has told.
            gone = self._dropped + lost
            notice = b'{"event": "log_lines_dropped", "lines": %d}\n' % (gone - told)
            if gone > told and self._write_all(notice):
                told = gone

    def _write_all(self, data: bytes) -> bool:
        """False: the reader is gone, or the disk is full. Of the lines some may have left."""
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:
            return False
        return True


class JsonLog:
    """Writes each event as one line of JSON. A request has such a line, so it is to be cheap."""

    def __init__(self, writer: LineWriter, level: int) -> None:
        self._writer = writer
        self._level = level

    def debug(self, event: str, **fields: Any) -> None:  # noqa: ANN401
        if self._level <= _LEVELS["debug"]:
            self._tell(event, "debug", fields)

    def info(self, event: str, **fields: Any) -> None:  # noqa: ANN401
        if self._level <= _LEVELS["info"]:
            self._tell(event, "info", fields)

    def warning(self, event: str, **fields: Any) -> None:  # noqa: ANN401
        if self._level <= _LEVELS["warning"]:
            self._tell(event, "warning", fields)

    def error(self, event: str, **fields: Any) -> None:  # noqa: ANN401
        self._tell(event, "error", fields)

    def _tell(self, event: str, level: str, fields: dict[str, Any]) -> None:
        fields["event"] = event
        fields["level"] = level
        fields["timestamp"] = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        if "exc_info" in fields and (exception := _describe(fields.pop("exc_info"))):
            fields["exception"] = exception
        line = _to_json(fields)
        if len(line) > USUAL_BYTES:
            line = _to_json({name: _clipped(name, value) for name, value in fields.items()})
        self._writer.write_line(line + b"\n")


def _describe(exc_info: object) -> str:
    """The traceback of an exception, or of the one that is being handled."""
    if not exc_info:
        return ""
    bug = exc_info if isinstance(exc_info, BaseException) else sys.exception()
    return "" if bug is None else "".join(traceback.format_exception(bug)).rstrip("\n")


def _to_json(fields: dict[str, Any]) -> bytes:
    try:
        line = _encode(fields)
    except UnicodeEncodeError:  # half a character, from somebody's file name
        return json.dumps(fields, default=repr).encode().replace(_DELETE, b"\\u007f")
    if line.isascii() and _DELETE not in line:
        return line  # what is below a space JSON escapes itself
    text = line.decode()
    return line if text.isprintable() else "".join(map(_json_escaped, text)).encode()


def _json_escaped(character: str) -> str:
    if character.isprintable():
        return character
    # Of what is left `dumps` writes all but one as \u: in two parts where it is a far one.
    return "\\u007f" if character == "\x7f" else json.dumps(character)[1:-1]


def _clipped(name: str, value: object) -> object:
    """A value as it may stand in a log: a long text loses its end, a traceback its begin."""
    if name == "exception":
        return str(value)[-TRACEBACK_MAX:]
    text = value if isinstance(value, str) else repr(value)
    if len(text) <= TEXT_MAX:
        return value
    return f"{text[:TEXT_MAX]} ... {len(text) - TEXT_MAX} more"


def open_log(config: LogConfig) -> Log:
    """Set up logging for this process.

    Raises:
      OSError: no thread can be started for it.
    """
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    as_text = config.format == "text" or (config.format == "auto" and is_terminal)
    with thread_refusals():
        writer = LineWriter(_STDERR)
    atexit.register(writer.close)
    level = _LEVELS[config.level]
    return _text_log(writer, level, has_colors=is_terminal) if as_text else JsonLog(writer, level)


def _text_log(writer: LineWriter, level: int, *, has_colors: bool) -> Log:
    import structlog  # noqa: PLC0415  # 130 ms that only a terminal need pay

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=False),
            _make_printable,
            structlog.dev.ConsoleRenderer(colors=has_colors),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=cast(TextIO, writer)),
        cache_logger_on_first_use=True,
    )
    log: Log = structlog.get_logger()
    return log


def _make_printable(_logger: object, _method: str, event: Any) -> Any:  # noqa: ANN401
    """Keep what a worker printed, or an exception quotes, from moving the operator's cursor."""
    if exception := _describe(event.pop("exc_info", None)):
        event["exception"] = exception
    for key, value in event.items():
        told = _clipped(key, value)
        if isinstance(told, str) and not told.isprintable():
            lines = told.split("\n") if key == "exception" else [told]
            told = "\n".join(map(_printable, lines))
        event[key] = told
    return event


def _printable(line: str) -> str:
    return line if line.isprintable() else line.encode("unicode_escape").decode("ascii")
