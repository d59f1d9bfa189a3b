"""The quick drills, as `rbee chaos` holds them, and drills that must fail (R1, R6, R7, R14)."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil
import pytest

from rbee.chaos.campaign import split_by_needs
from rbee.chaos.catalogue import SCENARIOS
from tests.e2e.server import wait_until

TIMEOUT_S = 300
QUICK = [scenario for scenario in SCENARIOS.values() if scenario.is_quick]

# A drill of a scenario that is made here; its report on stdout.
MADE = """
import signal, subprocess, sys, trio, msgspec
from pathlib import Path
from rbee.chaos.drill import run_drill
from rbee.chaos.processes import adopt_orphans
from rbee.chaos.scenario import Expected, Scenario
from rbee.chaos.worker_faults import end_busy_by

async def leave_a_process(scene):
    subprocess.Popen(["/bin/sleep", "60"], start_new_session=True)

fault = {"kill": end_busy_by(signal.SIGKILL), "leave": leave_a_process}[sys.argv[1]]
adopt_orphans()
folder = Path(sys.argv[2])
short = folder / "s"
short.mkdir()
report = trio.run(run_drill, Scenario(name="made", fault=fault), 1, folder, short)
sys.stdout.buffer.write(msgspec.json.encode(report))
"""


@pytest.fixture(scope="module")
def reports() -> dict[str, dict[str, Any]]:
    """What `rbee chaos --quick` says, by scenario."""
    command = [sys.executable, "-m", "rbee", "chaos", "--quick", "--json", "--jobs", "4"]
    done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    *drills, summary = lines
    assert done.returncode == (1 if summary["failed"] else 0), done.stderr
    assert summary["held"] == len(drills)
    return {drill["scenario"]: drill for drill in drills}


POSSIBLE = {scenario.name for scenario in split_by_needs(QUICK)[0]}


@pytest.mark.parametrize("name", [scenario.name for scenario in QUICK])
def test_drill_is_passed(name: str, reports: dict[str, dict[str, Any]]) -> None:
    if name not in POSSIBLE:
        pytest.skip(f"needs {', '.join(SCENARIOS[name].needs)}")
    assert reports[name]["problems"] == []
    assert reports[name]["passed"]


def held(which: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-c", MADE, which, str(folder)]
    done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=True)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_a_drill_fails_where_more_went_wrong_than_was_expected(tmp_path: Path) -> None:
    report = held("kill", tmp_path)
    assert not report["passed"]
    assert report["problems"] == [
        "the log has 'worker_failed' at level error, 1 times",
        "1 restarts, expected 0 to 0",
    ]
    assert (tmp_path / "server.log").stat().st_size > 0


def test_a_process_that_is_left_behind_is_told_and_ended(tmp_path: Path) -> None:
    report = held("leave", tmp_path)
    [problem] = report["problems"]
    assert problem.startswith("left behind: process ")
    pid = int(problem.split()[3])
    assert not Path(f"/proc/{pid}").exists()


def test_an_unknown_scenario_is_said_plainly() -> None:
    command = [sys.executable, "-m", "rbee", "chaos", "--scenario", "no-such"]
    done = subprocess.run(command, capture_output=True, timeout=30, check=False)
    assert done.returncode == 64
    assert b"there is no scenario 'no-such'" in done.stderr


def test_an_interrupted_campaign_leaves_nothing() -> None:
    command = [sys.executable, "-m", "rbee", "chaos", "--scenario", "worker-very-slow"]
    with tempfile.TemporaryDirectory(prefix="c-") as folder:
        environment = {**os.environ, "TMPDIR": folder}
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
            campaign = psutil.Process(process.pid)
            # The drill, its server, two workers and the warden.
            wait_until(lambda: len(campaign.children(recursive=True)) >= 5, 30, "its servers")
            family = campaign.children(recursive=True)
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 130
        assert [each for each in family if each.is_running()] == []
        assert list(Path(folder).iterdir()) == []
