"""Threads that the system refuses, told as what it refuses otherwise: by an `OSError`.

Python has a `RuntimeError` for it, which looks like a bug of ours and is caught by nobody.
"""

import contextlib
import errno
from collections.abc import Iterator
from typing import Final

_REFUSED: Final = "can't start new thread"


@contextlib.contextmanager
def thread_refusals() -> Iterator[None]:
    """Around what starts a thread.

    Raises:
      OSError: EAGAIN: no more threads may be started.
    """
    try:
        yield
    except RuntimeError as error:
        if str(error) != _REFUSED:
            raise
        raise OSError(errno.EAGAIN, "no more threads may be started") from error
