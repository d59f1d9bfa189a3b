"""Logs: one line per event, to stderr; JSON on a pipe, readable on a terminal.

Rule 1: an event is a name in lower_snake_case; what happened to whom stands in its fields.
Rule 2: no prompt, no answer, no secret. Control characters are escaped by the renderer.
"""

import contextlib
import io
import os
import sys
from typing import Any, Final, Protocol, TextIO, cast

from rbee.config import LogConfig

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Log(Protocol):
    """What the rest of rbee uses of a logger."""

    def debug(self, event: str, **fields: Any) -> Any: ...  # noqa: ANN401

    def info(self, event: str, **fields: Any) -> Any: ...  # noqa: ANN401

    def warning(self, event: str, **fields: Any) -> Any: ...  # noqa: ANN401

    def error(self, event: str, **fields: Any) -> Any: ...  # noqa: ANN401


class _Stderr(io.TextIOBase):
    """Stderr that never raises and never blocks the supervisor for good.

    A reader that went away, or a full disk behind a redirect, must not end the server.
    """

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            os.write(2, text.encode("utf-8", "replace"))
        return len(text)


def open_log(config: LogConfig) -> Log:
    """Set up logging for this process."""
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
        renderer = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[config.level]),
        logger_factory=structlog.WriteLoggerFactory(file=cast(TextIO, _Stderr())),
        cache_logger_on_first_use=True,
    )
    log: Log = structlog.get_logger()
    return log


def _escape_controls(_logger: object, _method: str, event: Any) -> Any:  # noqa: ANN401
    """Keep what a worker printed from moving the operator's cursor."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[key] = value.encode("unicode_escape").decode("ascii")
    return event
