"""SIGHUP: either somebody asks us to read files again, or the terminal that we live in has closed.

Which of the two it is, the kernel knows: a process whose terminal has closed has none any more.
"""

import errno
import os
import signal
from typing import Final

# How the kernel says that there is none. Other errors, as for want of a descriptor, say nothing.
_NONE: Final = frozenset({errno.ENXIO, errno.EIO})


class Terminal:
    """The terminal that we live in, if there is one. Made before SIGHUP is heard.

    After ``nohup`` there is none for us: we were started so that none ends us.
    """

    def __init__(self) -> None:
        has_nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._is_ours = not has_nohup and _problem() == 0

    @property
    def has_closed(self) -> bool:
        """False also where nobody can tell: to end by mistake would be the greater harm."""
        return self._is_ours and _problem() in _NONE


def _problem() -> int:
    """The `errno` of a look at the terminal that we would be ended with; 0: it is there."""
    try:
        descriptor = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return error.errno or errno.EINVAL
    os.close(descriptor)
    return 0
