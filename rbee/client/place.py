"""Where the server's socket is: found as `rbee` itself finds it."""

import os
from pathlib import Path
from typing import Final

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
