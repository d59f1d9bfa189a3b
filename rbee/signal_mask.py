"""The signals that a supervisor reads when it is ready to: until then they wait, and end nobody.

Rule 1: they are blocked before anything else is done, and to the very end of the process. A handler
        of Python's would come too late at both ends, and be interrupted by itself in a storm.
Rule 2: equal ones that wait are one, as the kernel has it.
Rule 3: who is spawned inherits it: a worker lets them through again, a warden heeds none.
"""

import signal
from typing import Final

HELD: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def hold_back() -> None:
    """Here, and in all threads and processes that are started from now on."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD)


def let_through() -> None:
    """Here, and in all threads and processes that are started from now on."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)
