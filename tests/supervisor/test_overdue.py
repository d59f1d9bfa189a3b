"""A shutdown that hangs is ended from outside of whatever hangs."""

import subprocess
import sys

import pytest

from rbee.errors import ExitCode

SCRIPT = """
import time
from rbee.config import LogConfig
from rbee.logs import open_log
from rbee.supervisor.overdue import Overdue
with Overdue(0.3, open_log(LogConfig(format="json"))) as overdue:
    overdue.start()
    time.sleep({hang_s})
time.sleep(0.6)
"""


@pytest.mark.parametrize(
    ("hang_s", "code", "says"), [(10, ExitCode.SOFTWARE, True), (0, ExitCode.OK, False)]
)
def test_a_process_ends_when_its_shutdown_is_overdue(hang_s: int, code: int, says: bool) -> None:
    script = SCRIPT.format(hang_s=hang_s)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=False, timeout=20
    )
    assert done.returncode == code
    assert (b"shutdown_overdue" in done.stderr) == says
