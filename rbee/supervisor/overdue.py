"""Ends the process when its shutdown takes longer than all its steps together may.

A thread of its own: whatever hangs, a task, a driver or a disk, does not hang it. It looks for
SIGTERM and SIGINT itself: who hangs, as in the start, reads none. The workers' life pipes and the
warden clear up behind us, as after a crash.
"""

import os
import select
import signal
import threading
import time
from collections.abc import Callable
from typing import Final

from rbee.errors import ExitCode
from rbee.signal_mask import descriptor_of
from rbee.threads import thread_refusals

# The log is written by a thread, which gets so long for its last lines.
LAST_LINES_S: Final = 0.2

# A limit that has become another one is seen so soon.
LOOK_EVERY_S: Final = 0.1


class Overdue:
    """``with Overdue(...) as overdue``: from `start` on, or from a signal that nobody reads, the
    block must end within the limit.

    Args:
      tell: says that it did not, given the limit; it must not wait.
    """

    def __init__(self, limit_s: float, tell: Callable[[float], None]) -> None:
        self._rule = (limit_s, tell)  # one assignment: the thread sees both, or neither
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="overdue", daemon=True)

    def change(self, limit_s: float, tell: Callable[[float], None]) -> None:
        """From here on this holds, though the time may run already."""
        self._rule = (limit_s, tell)

    def start(self) -> None:
        os.eventfd_write(self._begun, 1)

    def __enter__(self) -> "Overdue":
        """Raises: OSError: no thread can be started, or no descriptor had. At the end that would
        be too late to tell.
        """
        self._begun = os.eventfd(0, os.EFD_CLOEXEC)
        self._signals = descriptor_of(signal.SIGTERM, signal.SIGINT)
        with thread_refusals():
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.start()
        self._thread.join()
        os.close(self._begun)
        os.close(self._signals)

    def _run(self) -> None:
        begins = select.poll()
        for descriptor in (self._begun, self._signals):
            begins.register(descriptor, select.POLLIN)
        begins.poll()
        begun_s = time.monotonic()
        while (left_s := begun_s + self._rule[0] - time.monotonic()) > 0:
            if self._ended.wait(min(left_s, LOOK_EVERY_S)):
                return
        limit_s, tell = self._rule
        tell(limit_s)
        self._ended.wait(LAST_LINES_S)
        os._exit(ExitCode.SOFTWARE)
