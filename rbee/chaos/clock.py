"""A wall clock of its own for one server, which its drill can move.

Rule 1: Python's `time.time` and `time.time_ns` are moved, by which the supervisor tells times to
        others and judges those of others. What measures how long something takes is not.
Rule 2: libraries in C, the workers and the machine keep the real clock, so this needs no rights.
"""

import os
import struct
from pathlib import Path
from typing import Final

DAY_S: Final = 86_400.0

# The offset in seconds, as one double, in a file that the server has mapped.
_OFFSET: Final = struct.Struct("=d")
_FOLDER: Final = "clock"
_FILE: Final = "offset"

# Python runs a module of this name before the program: docs.python.org/3/library/site.html.
_MODULE: Final = "sitecustomize.py"
_SOURCE: Final = f"""
import mmap, pathlib, struct, time

def _moved(real, unit_s):
    return lambda: real() + type(real())(offset.unpack_from(memory)[0] / unit_s)

with (pathlib.Path(__file__).parent / "{_FILE}").open("rb") as file:
    memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
offset = struct.Struct("{_OFFSET.format}")
time.time, time.time_ns = _moved(time.time, 1), _moved(time.time_ns, 1e-9)
"""


def clock_environment(folder: Path) -> dict[str, str]:
    """Lay a clock there that goes as the machine's does.

    Returns:
      What must be in the environment of a Python that is to go by it.
    """
    own = folder / _FOLDER
    own.mkdir(exist_ok=True)
    (own / _MODULE).write_text(_SOURCE)
    (own / _FILE).write_bytes(_OFFSET.pack(0.0))
    paths = [str(own), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def set_clock(folder: Path, offset_s: float) -> None:
    """Have that clock go so far from the machine's, from now on."""
    with (folder / _FOLDER / _FILE).open("r+b", buffering=0) as file:
        file.write(_OFFSET.pack(offset_s))
