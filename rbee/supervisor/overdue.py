"""Ends the process when its shutdown takes longer than all its steps together may.

A thread of its own: whatever hangs, a task, a driver or a disk, does not hang it. It looks for
SIGTERM and SIGINT itself: who hangs, as in the start, reads none. The workers' life pipes and the
warden clear up behind us, as after a crash.
"""

import os
import select
import signal
import sys
import threading
from typing import Final

from rbee.errors import ExitCode
from rbee.logs import Log
from rbee.supervisor.held_signals import descriptor_of
from rbee.threads import thread_refusals

# The log is written by a thread, which gets so long for its last lines.
LAST_LINES_S: Final = 0.2


class Overdue:
    """``with Overdue(...) as overdue``: from `start` on, or from a signal that nobody reads, the
    block must end within the limit.
    """

    def __init__(self, limit_s: float, log: Log) -> None:
        self._limit_s = limit_s
        self._log = log
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="overdue", daemon=True)

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
        if self._ended.wait(self._limit_s):
            return
        self._log.error(
            "shutdown_overdue", limit_s=self._limit_s, exit_code=int(ExitCode.SOFTWARE),
            remedy="what is left of the workers is ended by their life pipes and the warden",
        )  # fmt: skip
        self._ended.wait(LAST_LINES_S)
        if sys.stderr is not None:
            sys.stderr.flush()
        os._exit(ExitCode.SOFTWARE)
