"""What a server needs from its first line on, before it knows its configuration.

Rule: what this imports takes some milliseconds, as signals end the process in that time.
"""

import contextlib
import os
import select
from collections.abc import Iterator
from typing import Final, NamedTuple

from rbee.signal_mask import hold_back
from rbee.supervisor.hang_up import Terminal
from rbee.supervisor.overdue import Overdue

# What a start that was told to end gets to import all, and to read rbee.toml: half a second, or
# some more from a slow disk. It holds nothing yet that an end would hurt.
START_S_MAX: Final = 10.0

_STDERR: Final = 2


class Start(NamedTuple):
    """Lives as long as the process does."""

    terminal: Terminal
    overdue: Overdue


@contextlib.contextmanager
def begin() -> Iterator[Start]:
    """Hold signals back, from here on to the end of the process, but see that they end it.

    Raises:
      OSError: no thread can be started, or no descriptor had.
    """
    terminal = Terminal()  # first: the signal of one that closes must end us, or find it known
    hold_back()
    with Overdue(START_S_MAX, _tell_overdue) as overdue:
        yield Start(terminal, overdue)


def _tell_overdue(limit_s: float) -> None:
    """There is no log yet."""
    line = f"rbee: shutdown_overdue: the start hangs, {limit_s:g} s after a signal to end it\n"
    takes = select.poll()
    takes.register(_STDERR, select.POLLOUT)
    if takes.poll(0):  # else its reader stalls, and to write would wait for that
        with contextlib.suppress(OSError):
            os.write(_STDERR, line.encode())
