"""Ends the process when its shutdown takes longer than all its steps together may.

A thread of its own: whatever hangs, a task, a driver or a disk, does not hang it. The workers'
life pipes and the warden clear up behind us, as after a crash.
"""

import os
import sys
import threading
from typing import Final

from rbee.errors import ExitCode
from rbee.logs import Log
from rbee.threads import thread_refusals

# The log is written by a thread, which gets so long for its last lines.
LAST_LINES_S: Final = 0.2


class Overdue:
    """``with Overdue(...) as overdue``: from `start` on, the block must end within the limit."""

    def __init__(self, limit_s: float, log: Log) -> None:
        self._limit_s = limit_s
        self._log = log
        self._begun = threading.Event()
        self._ended = threading.Event()

    def start(self) -> None:
        self._begun.set()

    def __enter__(self) -> "Overdue":
        """Raises: OSError: no thread can be started. At the end that would be too late to tell."""
        with thread_refusals():
            threading.Thread(target=self._run, name="overdue", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._begun.set()

    def _run(self) -> None:
        self._begun.wait()
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
