"""What may reach a terminal: no control character but those that break lines and tabs.

A model, a server or a file name can hold escape sequences that move the cursor, rename the
window or type commands. They are shown in words instead: ``\\x1b``.
"""

import io
import os
import sys
from collections.abc import Sequence
from typing import Final, TextIO

from rbee.cli.endings import OutputError, ReaderGoneError

_LAYOUT: Final = "\n\t"
_CONTROLS: Final = [*range(0x20), *range(0x7F, 0xA0)]  # C0, DEL, C1
_IN_TEXT: Final = {code: f"\\x{code:02x}" for code in _CONTROLS if chr(code) not in _LAYOUT}
_IN_LINE: Final = _IN_TEXT | {ord("\n"): "\\n", ord("\t"): "\\t"}


def printable(text: str) -> str:
    """The text with every control character in words, but line breaks and tabs."""
    return text.translate(_IN_TEXT)


def printable_line(text: str) -> str:
    """The text on one line, with every control character in words."""
    return text.translate(_IN_LINE)


def columns(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows in even columns, one on each line; the last column is as long as it is."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return "\n".join(map(printable_line, lines))


def is_terminal(stream: TextIO) -> bool:
    """Whether people read here. False for a stream that is closed or was never there."""
    # The interpreter sets sys.stdout to None where the descriptor was closed.
    return stream is not None and not stream.closed and stream.isatty()


def put(text: str, end: str = "\n") -> None:
    """Write to stdout, at once. No text at all: only what still waits there.

    Raises:
      ReaderGoneError: nobody reads there any more.
      OutputError: it cannot be written.
    """
    # The interpreter found it closed; `print` would be content with that, and a flush may be.
    if sys.stdout is None:
        if text + end:
            raise OutputError("cannot write to stdout: it is closed")
        return
    try:
        if text + end:  # a stdout without a buffer would write that, too, and it may fail
            print(text, end=end)
        sys.stdout.flush()
    except BrokenPipeError as error:
        _drop_output()
        raise ReaderGoneError("stdout is closed") from error
    except OSError as error:
        _drop_output()
        raise OutputError(f"cannot write to stdout: {error.strerror}") from error


def show(piece: str) -> None:
    """Show a piece of an answer: on a terminal with control characters in words."""
    put(printable(piece) if is_terminal(sys.stdout) else piece, end="")


def say(text: str) -> None:
    """Tell the operator something that is not part of the output: on stderr, if there is one.

    Raises:
      ReaderGoneError: nobody reads there any more.
    """
    if sys.stderr is None:  # the interpreter found it closed; `print` would take stdout
        return
    try:
        print(printable(text), file=sys.stderr, flush=True)
    except OSError as error:
        raise ReaderGoneError("stderr is closed") from error


def accept_any_text() -> None:
    """Show what the terminal's character set lacks as escapes, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """Send what stdout still holds nowhere, so that the interpreter's last flush succeeds."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
