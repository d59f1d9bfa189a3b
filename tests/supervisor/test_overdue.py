"""A shutdown that hangs is ended from outside of whatever hangs."""

import subprocess
import sys

import pytest

from rbee.errors import ExitCode

SCRIPT = """
import os, signal, sys, time
from rbee.signal_mask import hold_back
from rbee.supervisor.overdue import Overdue
hold_back()
def tell(limit_s):
    print("overdue after", limit_s, file=sys.stderr, flush=True)
with Overdue({limit_s}, tell) as overdue:
    {begin}
    time.sleep({hang_s})
time.sleep(0.6)
"""


BEGIN = "overdue.start()"
UNREAD_SIGNAL = "os.kill(os.getpid(), signal.{})"


@pytest.mark.parametrize(
    ("begin", "hang_s", "code", "says"),
    [
        (BEGIN, 10, ExitCode.SOFTWARE, True),
        (BEGIN, 0, ExitCode.OK, False),
        (UNREAD_SIGNAL.format("SIGTERM"), 10, ExitCode.SOFTWARE, True),
        (UNREAD_SIGNAL.format("SIGINT"), 10, ExitCode.SOFTWARE, True),
        (UNREAD_SIGNAL.format("SIGTERM"), 0, ExitCode.OK, False),
        (UNREAD_SIGNAL.format("SIGHUP"), 0.5, ExitCode.OK, False),
        ("pass", 0.5, ExitCode.OK, False),
    ],
)
def test_a_process_ends_when_its_shutdown_is_overdue(
    begin: str, hang_s: float, code: int, says: bool
) -> None:
    done = run(begin, hang_s)
    assert done.returncode == code
    assert done.stderr == (b"overdue after 0.3\n" if says else b"")


@pytest.mark.parametrize(("limit_s", "later_s"), [(30, 0.4), (0.4, 30)])
def test_a_limit_that_changes_holds_though_the_time_runs(limit_s: float, later_s: float) -> None:
    done = run(f"overdue.start(); time.sleep(0.1); overdue.change({later_s}, tell)", 1.5, limit_s)
    is_shorter = later_s < limit_s
    assert done.returncode == (ExitCode.SOFTWARE if is_shorter else ExitCode.OK)
    assert done.stderr == (b"overdue after 0.4\n" if is_shorter else b"")


def run(begin: str, hang_s: float, limit_s: float = 0.3) -> subprocess.CompletedProcess[bytes]:
    script = SCRIPT.format(begin=begin, hang_s=hang_s, limit_s=limit_s)
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=False, timeout=20
    )
