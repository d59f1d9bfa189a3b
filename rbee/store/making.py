"""Makes a new store: it has its name only once it is whole, so that what has the name was whole.

Rule: one process at a time makes one, under a lock on the folder that ends with the process.
      What another name has by then was left by one that was killed.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rbee.errors import StoreUnmadeError
from rbee.store.database import COMPANIONS, empty_store

# How long another process may take to make it: milliseconds, unless its disk does not answer.
LOCK_TIMEOUT_S: Final = 2.0
_LOCK_EVERY_S: Final = 0.01

_DRAFT: Final = ".new"
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def make_store(path: Path) -> None:
    """Make an empty store, unless another process was quicker. Its folder is there.

    Raises:
      OSError: nothing can be begun in that folder.
      StoreUnmadeError: it was begun, and taken away again; or another process holds the lock.
    """
    with _locked(path) as folder:
        if not os.path.lexists(path):
            _make(path)
            os.fsync(folder)


def _make(path: Path) -> None:
    draft = path.with_name(f"{path.name}{_DRAFT}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, _CREATE, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(empty_store())
            file.flush()
            os.fsync(descriptor)
        # Of a store that has gone. SQLite would take them for this one's.
        for companion in COMPANIONS:
            Path(f"{path}{companion}").unlink(missing_ok=True)
        draft.rename(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise StoreUnmadeError(f"the store {path} cannot be made: {error.strerror}") from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Hold the lock on the store's folder. Yields: the folder's descriptor."""
    folder, give_up_s = os.open(path.parent, _FOLDER), time.monotonic() + LOCK_TIMEOUT_S
    try:
        while not _lock(folder):
            if time.monotonic() >= give_up_s:
                raise StoreUnmadeError(f"the store {path} is not there yet: another makes it")
            time.sleep(_LOCK_EVERY_S)
        yield folder
    finally:
        os.close(folder)


def _lock(folder: int) -> bool:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
