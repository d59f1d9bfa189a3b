"""The signals that a supervisor reads when it is ready to: until then they wait, and end nobody.

Rule 1: they are blocked before anything else is done, and to the very end of the process. A handler
        of Python's would come too late at both ends, and be interrupted by itself in a storm.
Rule 2: equal ones that wait are one, as the kernel has it.
Rule 3: who is spawned inherits it: a worker lets them through again, a warden heeds none.
"""

import ctypes
import os
import signal
from typing import Final

HELD: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_SIGSET_BYTES: Final = 128  # sigset_t of glibc and musl
_FLAGS: Final = os.O_NONBLOCK | os.O_CLOEXEC  # SFD_NONBLOCK | SFD_CLOEXEC: the same bits


def hold_back() -> None:
    """Here, and in all threads and processes that are started from now on."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD)


def let_through() -> None:
    """Here, and in all threads and processes that are started from now on."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)


def descriptor_of(*numbers: signal.Signals) -> int:
    """A new one, which is readable while one of them waits. Who but looks takes none away.

    Raises:
      OSError: there is none to be had.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    signals = ctypes.create_string_buffer(_SIGSET_BYTES)
    libc.sigemptyset(signals)
    for number in numbers:
        libc.sigaddset(signals, int(number))
    descriptor = int(libc.signalfd(-1, signals, _FLAGS))
    if descriptor < 0:
        problem = ctypes.get_errno()
        raise OSError(problem, os.strerror(problem))
    return descriptor
