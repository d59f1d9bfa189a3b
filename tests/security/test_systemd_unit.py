"""The unit that is shipped: what it promises, and what systemd says of it."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from rbee.config import Config
from rbee.errors import ExitCode
from rbee.supervisor.main import FACES_CLOSE_S, OVERDUE_S

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy" / "systemd" / "rbee.service"
DOCS = (ROOT / "docs" / "systemd.md").read_text("utf-8")
EXPOSURE_MAX = 2.0


def service() -> configparser.SectionProxy:
    """Of keys that stand more than once, the last."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(UNIT.read_text("utf-8"))
    return parser["Service"]


def test_only_the_supervisor_is_told_to_stop_and_has_time_for_it() -> None:
    unit, config = service(), Config()
    assert unit["KillMode"] == "mixed"
    needed_s = config.server.drain_s + FACES_CLOSE_S + config.worker.kill_after_s + OVERDUE_S
    assert float(unit["TimeoutStopSec"]) > needed_s


def test_it_is_not_started_again_where_that_cannot_help() -> None:
    unit = service()
    codes = {int(each) for each in unit["RestartPreventExitStatus"].split()}
    assert codes == {ExitCode.USAGE, ExitCode.NO_PERMISSION, ExitCode.CONFIG}
    assert unit["Restart"] == "on-failure"


def test_a_reload_that_comes_before_python_has_started_does_not_leave_it_down() -> None:
    assert service()["RestartForceExitStatus"] == "SIGHUP"


def test_what_rbee_needs_is_left_to_it() -> None:
    unit = service()
    assert unit["Type"] == "exec"
    assert unit["Delegate"] == "yes"
    assert "ProtectControlGroups" not in unit  # its workers' cgroups are made there
    assert unit["OOMPolicy"] == "continue"
    assert "HUP" in unit["ExecReload"]


def test_every_line_that_takes_something_away_is_explained() -> None:
    for key in (
        "KillMode",
        "TimeoutStopSec",
        "Delegate",
        "OOMPolicy",
        "DeviceAllow",
        "PrivateUsers",
    ):
        assert f"`{key}" in DOCS, key


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)
def test_systemd_rates_its_exposure_low() -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNIT)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    if found is None and "offline" in done.stderr:
        pytest.skip("this systemd-analyze cannot rate a file")
    assert found is not None, done.stderr
    assert float(found[1]) <= EXPOSURE_MAX
    assert "Unknown" not in done.stderr
