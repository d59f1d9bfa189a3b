"""A shutdown that hangs is ended from outside of whatever hangs."""

import subprocess
import sys

import pytest

from rbee.errors import ExitCode

SCRIPT = """
import os, signal, time
from rbee.config import LogConfig
from rbee.logs import open_log
from rbee.signal_mask import hold_back
from rbee.supervisor.overdue import Overdue
hold_back()
with Overdue(0.3, open_log(LogConfig(format="json"))) as overdue:
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
    script = SCRIPT.format(begin=begin, hang_s=hang_s)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=False, timeout=20
    )
    assert done.returncode == code
    assert (b"shutdown_overdue" in done.stderr) == says
