"""The quick drills, as `rbee chaos` holds them, and drills that must fail (R1, R6, R7, R14)."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from rbee.chaos.campaign import split_by_needs
from rbee.chaos.catalogue import SCENARIOS
from rbee.chaos.leftovers import find_cgroups, instances
from tests.e2e.server import wait_until

TIMEOUT_S = 115  # without any report; a drill takes 10 to 30 s
QUICK = [scenario for scenario in SCENARIOS.values() if scenario.is_quick]

# A drill of a scenario that is made here; its report on stdout.
MADE = """
import signal, subprocess, sys, trio, msgspec
from pathlib import Path
from rbee.chaos.deeds import Deeds, check_doors_closed
from rbee.chaos.drill import run_drill
from rbee.chaos.preparations import prepare_process
from rbee.chaos.scenario import Expected, Scenario
from rbee.chaos.worker_faults import end_busy_by

async def leave_a_process(scene):
    subprocess.Popen(["/bin/sleep", "60"], start_new_session=True)

async def make_a_key(scene):
    await Deeds(scene).make()

async def try_the_door(scene):
    await check_doors_closed(scene.server)

fault = {
    "kill": end_busy_by(signal.SIGKILL), "leave": leave_a_process, "make": make_a_key,
    "try": try_the_door,
}[sys.argv[1]]
prepare_process()
folder = Path(sys.argv[2])
short = folder / "s"
short.mkdir()
report = trio.run(run_drill, Scenario(name="made", fault=fault), 1, folder, short)
sys.stdout.buffer.write(msgspec.json.encode(report))
"""


class Campaign:
    """`rbee chaos --quick`, and what it has said so far."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "rbee", "chaos", "--quick", "--json", "--jobs", "4"]
        self.reports: dict[str, dict[str, Any]] = {}
        self.summary: dict[str, Any] | None = None
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        self._has_said_more = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def wait_report(self, name: str) -> dict[str, Any]:
        with self._has_said_more:
            while name not in self.reports and self.summary is None:
                assert self._has_said_more.wait(TIMEOUT_S), f"no report within {TIMEOUT_S} s"
        return self.reports[name]

    def wait_summary(self) -> dict[str, Any]:
        self._thread.join(TIMEOUT_S)
        assert self.summary is not None, "the campaign ended without a summary"
        return self.summary

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self.process.wait(30)
        self._thread.join(5)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            said = json.loads(line)
            with self._has_said_more:
                if "held" in said:
                    self.summary = said
                else:
                    self.reports[said["scenario"]] = said
                self._has_said_more.notify_all()


@pytest.fixture(scope="module")
def campaign() -> Iterator[Campaign]:
    made = Campaign()
    yield made
    made.close()


POSSIBLE = {scenario.name for scenario in split_by_needs(QUICK)[0]}


@pytest.mark.parametrize("name", [scenario.name for scenario in QUICK])
def test_drill_is_passed(name: str, campaign: Campaign) -> None:
    if name not in POSSIBLE:
        pytest.skip(f"needs {', '.join(SCENARIOS[name].needs)}")
    report = campaign.wait_report(name)
    assert report["problems"] == []
    assert report["passed"]


def test_the_campaign_tells_at_its_end_what_it_held(campaign: Campaign) -> None:
    summary = campaign.wait_summary()
    assert summary == {"held": len(POSSIBLE), "failed": [], "skipped": summary["skipped"]}
    assert campaign.process.wait(30) == 0


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


@pytest.mark.parametrize(
    ("which", "told"),
    [
        ("make", "a key to be made: status 403, 'permission_denied'"),
        ("try", "who must not come in gets status 200"),
    ],
)
def test_a_deed_that_goes_otherwise_than_documented_fails_its_drill(
    which: str, told: str, tmp_path: Path
) -> None:
    report = held(which, tmp_path)
    assert not report["passed"]
    assert report["problems"] == [told]


def test_an_unknown_scenario_is_said_plainly() -> None:
    command = [sys.executable, "-m", "rbee", "chaos", "--scenario", "no-such"]
    done = subprocess.run(command, capture_output=True, timeout=30, check=False)
    assert done.returncode == 64
    assert b"there is no scenario 'no-such'" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_campaign_leaves_nothing(number: int) -> None:
    command = [sys.executable, "-m", "rbee", "chaos", "--scenario", "worker-very-slow"]
    with tempfile.TemporaryDirectory(prefix="c-") as folder:
        environment = {**os.environ, "TMPDIR": folder}
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
            campaign = psutil.Process(process.pid)
            # The drill, its server, two workers and the warden.
            wait_until(lambda: len(campaign.children(recursive=True)) >= 5, 30, "its servers")
            family = campaign.children(recursive=True)
            marks = instances({each.pid for each in family})
            assert len(marks) == 1
            process.send_signal(number)
            assert process.wait(30) == 130
        assert find_cgroups(marks) == []
        assert [each for each in family if each.is_running()] == []
        assert list(Path(folder).iterdir()) == []
