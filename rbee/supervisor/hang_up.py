"""SIGHUP: either somebody asks us to read files again, or the terminal that we live in has closed.

Rule 1: it is blocked for as long as the supervisor lives, and read from a descriptor: none ends us
        by itself, none is lost, and a storm of them is one signal that waits. A handler of Python's
        would be interrupted by itself, until nothing is left to recurse.
Rule 2: which of the two it is, the kernel knows: a process whose terminal has closed has none
        any more.
"""

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterator
from typing import Final

import trio

_SIGSET_BYTES: Final = 128  # sigset_t of glibc and musl
_SIGINFO_BYTES: Final = 128  # struct signalfd_siginfo, signalfd(2)
_FLAGS: Final = os.O_NONBLOCK | os.O_CLOEXEC  # SFD_NONBLOCK | SFD_CLOEXEC: the same bits


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Block it, here and in all threads and processes that are started from now on. One that
    still waits at the end comes to nothing.
    """
    signals = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    before = signal.getsignal(signal.SIGHUP)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the kernel forgets what waits
        signal.pthread_sigmask(signal.SIG_SETMASK, signals)
        signal.signal(signal.SIGHUP, before)


class HangUps:
    """Hears what is `held_back`. Close it by leaving its block.

    Raises:
      OSError: there is no descriptor for it.
    """

    def __init__(self) -> None:
        self._descriptor = _signalfd()

    def __enter__(self) -> "HangUps":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    async def wait(self) -> None:
        """Wait for one, or for what became one of several. Cancelling it loses none."""
        while True:
            await trio.lowlevel.wait_readable(self._descriptor)
            with contextlib.suppress(BlockingIOError):
                os.read(self._descriptor, _SIGINFO_BYTES)
                return


def _signalfd() -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    signals = ctypes.create_string_buffer(_SIGSET_BYTES)
    libc.sigemptyset(signals)
    libc.sigaddset(signals, int(signal.SIGHUP))
    descriptor = int(libc.signalfd(-1, signals, _FLAGS))
    if descriptor < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return descriptor


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
