"""SIGHUP: either somebody asks us to read files again, or the terminal that we live in has closed.

Rule 1: from `held_back` on none ends us by itself, and until shutdown none is lost: one that
        comes before there is anybody to hear it is heard then.
Rule 2: which of the two it is, the kernel knows: a process whose terminal has closed has none
        any more.
"""

import contextlib
import os
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Have SIGHUP wait until it is `heard`. One that still waits at the end comes to nothing."""
    signals = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    before = signal.getsignal(signal.SIGHUP)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the kernel forgets what waits
        signal.pthread_sigmask(signal.SIG_SETMASK, signals)
        signal.signal(signal.SIGHUP, before)


@contextlib.contextmanager
def heard() -> Iterator[None]:
    """Until the end of the block there is somebody to hear it, in the main thread."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})


def has_terminal() -> bool:
    """Whether there is a terminal that we would be ended with."""
    try:
        descriptor = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    os.close(descriptor)
    return True


class Terminal:
    """The terminal that we live in, if there is one. Made before SIGHUP is heard.

    After ``nohup`` there is none for us: we were started so that none ends us.
    """

    def __init__(self) -> None:
        has_nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._is_ours = has_terminal() and not has_nohup

    @property
    def has_closed(self) -> bool:
        return self._is_ours and not has_terminal()
