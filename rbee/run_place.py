"""Where the run directory is, if nobody says otherwise: the server and its clients ask here."""

import os
from pathlib import Path


def default_run_dir() -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        return Path(runtime) / "rbee"
    if os.geteuid() == 0:
        return Path("/run/rbee")
    return Path(f"/tmp/rbee-{os.geteuid()}")  # noqa: S108  # owner and mode are checked
