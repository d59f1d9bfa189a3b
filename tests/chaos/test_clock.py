"""A server's own clock: it goes as far from the machine's as it is told, and only it."""

import os
import subprocess
import sys
import time
from pathlib import Path

from rbee.chaos.clock import DAY_S, clock_environment, set_clock

SHOW = """
import time
while input():
    print(time.time(), time.time_ns(), time.monotonic(), flush=True)
"""


class Shown:
    """A Python that goes by such a clock."""

    def __init__(self, folder: Path) -> None:
        environment = {**os.environ, **clock_environment(folder)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", SHOW], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def look(self) -> tuple[float, float]:
        """How far its wall clock and its monotonic one are from the machine's."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("look\n")
        self.process.stdin.flush()
        wall_s, wall_ns, monotonic_s = self.process.stdout.readline().split()
        assert abs(float(wall_s) - int(wall_ns) / 1e9) < 1
        return float(wall_s) - time.time(), float(monotonic_s) - time.monotonic()

    def close(self) -> None:
        self.process.communicate("\n", timeout=10)


def test_the_wall_clock_jumps_and_no_other(tmp_path: Path) -> None:
    shown = Shown(tmp_path)
    try:
        for offset_s in (0.0, DAY_S, -DAY_S, 0.0):
            set_clock(tmp_path, offset_s)
            wall_s, monotonic_s = shown.look()
            assert abs(wall_s - offset_s) < 5
            assert abs(monotonic_s) < 5
    finally:
        shown.close()
