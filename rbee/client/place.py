"""Where the server's socket is: found as `rbee` itself finds it.

Rule: a run directory that another user may have made is none. The default lies in /tmp where there
      is no other place, and there anybody may make a folder of that name before the server does.
"""

import os
import stat
from pathlib import Path
from typing import Final

from rbee.client.errors import ForeignServerError, ServerGoneError
from rbee.config import load_config
from rbee.local_wire import SOCKET_NAME
from rbee.run_place import default_run_dir

CONFIG_FILE: Final = Path("rbee.toml")


def socket_path(run_dir: str | os.PathLike[str] | None) -> Path:
    """The socket in a run directory; None: that of ./rbee.toml, else the default.

    Raises:
      ConfigError: ./rbee.toml is there and cannot be used.
    """
    if run_dir is not None:
        return Path(run_dir).absolute() / SOCKET_NAME
    configured = load_config(CONFIG_FILE).server.run_dir if CONFIG_FILE.exists() else ""
    return (Path(configured).absolute() if configured else default_run_dir()) / SOCKET_NAME


def check_place(path: Path) -> None:
    """Whether a socket is there, and whose.

    Raises:
      ServerGoneError: there is none.
      ForeignServerError: see the rule.
    """
    folder, us = path.parent, os.geteuid()
    try:
        if not is_trusted(folder.lstat(), folder.stat(), us):
            raise ForeignServerError(
                f"{folder} must belong to uid {us} or to root, and nobody else may write to it"
            )
        path.stat()
    except OSError as error:
        raise ServerGoneError(f"no server is there: {path}: {error.strerror}") from error


def is_trusted(entry: os.stat_result, folder: os.stat_result, us: int) -> bool:
    """Whether a run directory is one that no other user can have made. Root may go to any user's.

    Args:
      entry: the folder, or the link that leads to it.
      us: the user who asks.
    """
    is_ours = us == 0 or {entry.st_uid, folder.st_uid} <= {0, us}
    return is_ours and not folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
