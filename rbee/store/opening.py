"""Opens the store's file: ours alone, whole, and made where there is none."""

import contextlib
import os
import stat
import time
from pathlib import Path
from typing import Final

from rbee.errors import StoreCorruptError, StoreError
from rbee.store.database import COMPANIONS, Database, read_through
from rbee.store.making import make_store
from rbee.store.store import Store

FILE_NAME: Final = "rbee.db"

_ASIDE: Final = ".corrupt-"


def open_store(path: Path, *, create: bool = True) -> Store | None:
    """Open the store at ``path``; its folder is made as well.

    Args:
      create: make one where there is none.
    Returns:
      None: there is none, and none was to be made.

    Raises:
      StoreError: it cannot be used: locked, not ours, open to others, the disk.
      StoreUnmadeError: there is none, and it could not be made now.
      StoreCorruptError: it is broken. `set_aside` makes room for a new one.
    """
    try:
        found = _find(path)
        if not found and not create:
            return None
        if not found:
            _create(path)
    except OSError as error:
        message = f"the store {path} cannot be opened: {error.strerror}"
        raise StoreError(message) from error
    try:
        return Store(Database(path))
    except StoreCorruptError:
        read_through(path)
        return Store(Database(path))


def set_aside(path: Path, now_unix_s: float) -> Path:
    """Give a broken store another name, so that a new one can take its place.

    Returns:
      The new name.

    Raises:
      StoreError: it could not be renamed.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_unix_s))
    aside = path.with_name(f"{path.name}{_ASIDE}{stamp}")
    try:
        for companion in ("", *COMPANIONS):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{path}{companion}").rename(f"{aside}{companion}")
    except OSError as error:
        raise StoreError(f"the store {path} cannot be set aside: {error.strerror}") from error
    return aside


def has_aside(path: Path) -> bool:
    """Whether a broken store lies beside ``path``, or that cannot be seen."""
    try:
        return any(each.name.startswith(f"{path.name}{_ASIDE}") for each in path.parent.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True


def _find(path: Path) -> bool:
    """Whether there is one.

    Raises:
      StoreError: there is, and it is not as it must be.
      StoreCorruptError: it is empty, as none of ours ever was.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    mode = stat.S_IMODE(found.st_mode)
    if not stat.S_ISREG(found.st_mode):
        raise StoreError(f"the store {path} must be a regular file")
    if found.st_uid != os.geteuid():
        raise StoreError(
            f"the store {path} must be owned by uid {os.geteuid()}, found uid {found.st_uid}:"
            " run the command as the user that the server runs as"
        )
    if mode & 0o077:
        raise StoreError(f"the store {path} must be closed to others (0600), found {mode:04o}")
    if not found.st_size:  # SQLite would take it for a new one, and delete the log beside it
        raise StoreCorruptError(f"the store {path} is broken: the file is empty")
    return True


def _create(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = path.parent.stat().st_uid
    if owner != os.geteuid():  # the server could not read what we make there
        raise StoreError(
            f"the folder {path.parent} belongs to uid {owner}: run the command as that user"
        )
    make_store(path)
