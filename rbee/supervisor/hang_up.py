"""SIGHUP: either somebody asks us to read files again, or the terminal that we live in has closed.

Which of the two it is, the kernel knows: a process whose terminal has closed has none any more.
"""

import os
import signal


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
