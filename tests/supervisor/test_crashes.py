"""What is kept of workers that failed: bounded, readable by us alone, and never in the way."""

import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rbee.supervisor.crashes import CRASH_BYTES_MAX, CRASHES_MAX, Crashes, default_state_dir
from rbee.supervisor.last_lines import LINE_CHARS_MAX, LINES_MAX, LastLines
from tests.supervisor.fakes import NoLog


def crash_id(number: int) -> str:
    return f"20261123T1455{number:02}.123Z-m-0-{4000 + number}"


def document(number: int, size: int = 0) -> bytes:
    fields: dict[str, Any] = {
        "id": crash_id(number), "time": "2026-11-23T14:55:00.123Z", "slot": "m-0", "model": "m",
        "engine": "synthetic", "pid": 4000 + number, "cause": "crash", "how": "signal 11",
        "lines": "x" * size,
    }  # fmt: skip
    return msgspec.json.encode(fields)


def opened(folder: Path) -> Crashes:
    crashes = Crashes(folder, NoLog())
    crashes.load()
    return crashes


def test_the_last_reports_outlive_a_restart_and_the_oldest_go(tmp_path: Path) -> None:
    crashes = opened(tmp_path)
    for number in range(CRASHES_MAX + 5):
        crashes.write(crashes.add(document(number)).id)
    expected = [crash_id(number) for number in reversed(range(5, CRASHES_MAX + 5))]
    assert [crash.id for crash in crashes.newest_first()] == expected
    assert [crash.id for crash in opened(tmp_path).newest_first()] == expected
    assert len(list(crashes.folder.iterdir())) == CRASHES_MAX
    assert crashes.report(crash_id(0)) is None


@pytest.mark.parametrize("ahead", ["names", "names and files"])
def test_the_last_reports_are_kept_although_the_clock_went_back(tmp_path: Path, ahead: str) -> None:
    crashes = opened(tmp_path)
    later_s = time.time() + 365 * 86400
    for number in range(30, 30 + CRASHES_MAX):
        kept = crashes.add(document(number)).id
        crashes.write(kept)
        if ahead == "names and files":
            os.utime(crashes.folder / f"{kept}.json", (later_s + number, later_s + number))
    crashes = opened(tmp_path)
    for number in (2, 1, 0):
        crashes.write(crashes.add(document(number)).id)
    newest = [crash_id(number) for number in (0, 1, 2)]
    for each in (crashes, opened(tmp_path)):
        assert [crash.id for crash in each.newest_first()][:3] == newest
    assert len(list(crashes.folder.iterdir())) == CRASHES_MAX


def test_reports_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    crashes = opened(tmp_path / "state")
    crashes.write(crashes.add(document(1)).id)
    [file] = crashes.folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(crashes.folder.stat().st_mode) == 0o700
    assert file.read_bytes() == document(1)


def test_what_is_no_report_is_left_alone(tmp_path: Path) -> None:
    folder = opened(tmp_path).folder
    (folder / "notes.json").write_text("{}")
    (folder / f"{crash_id(1)}.json").write_text("not JSON")
    (folder / f"{crash_id(2)}.json").symlink_to("/etc/passwd")
    (folder / f"{crash_id(3)}.json").mkdir()
    (folder / f"{crash_id(4)}.json").write_bytes(document(4, CRASH_BYTES_MAX))
    (folder / f"{crash_id(5)}.json").write_bytes(document(5))
    assert [crash.id for crash in opened(tmp_path).newest_first()] == [crash_id(5)]
    assert (folder / "notes.json").exists()


def test_a_folder_that_cannot_be_had_costs_the_files_only(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    log = NoLog()
    crashes = Crashes(tmp_path / "state", log)
    crashes.load()
    assert log.events[0][0] == "crash_reports_not_kept"
    kept = crashes.add(document(1))
    with pytest.raises(OSError, match=r"Not a directory|exists"):
        crashes.write(kept.id)
    assert crashes.report(kept.id) == document(1)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}, "/var/lib/a"),
        ({"XDG_STATE_HOME": "/home/x/state"}, "/home/x/state/rbee"),
    ],
)
def test_the_state_directory_is_where_the_system_wants_it(
    variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert default_state_dir() == Path(expected)


def test_the_last_lines_of_each_worker_are_kept_apart_and_passed_on() -> None:
    log, now_s = NoLog(), 100.0
    lines = LastLines(log, lambda: now_s)
    for number in range(LINES_MAX + 10):
        lines.info("worker_output", worker="a-0", pid=1, line=f"line {number}")
    lines.warning("worker_killed", worker="b-0", pid=2, signal="SIGKILL")
    lines.debug("worker_output", worker="b-0", line="not told")
    lines.info("serving", model="m")
    assert [line.text for line in lines.of("a-0")][:2] == ["line 10", "line 11"]
    assert len(lines.of("a-0")) == LINES_MAX
    assert [line.text for line in lines.of("b-0")] == ["[worker_killed] pid=2 signal=SIGKILL"]
    assert len(log.events) == LINES_MAX + 13
    lines.error("worker_output", worker="a-0", line="y" * 10_000)
    assert len(lines.since("a-0", LINES_MAX + 10)[0].text) == LINE_CHARS_MAX
    assert lines.since("a-0", lines.count("a-0")) == []
    lines.forget("a-0")
    assert lines.of("a-0") == []


def test_a_report_is_whole_json(tmp_path: Path) -> None:
    crashes = opened(tmp_path)
    crashes.write(crashes.add(document(1)).id)
    [file] = crashes.folder.iterdir()
    assert json.loads(file.read_text())["id"] == crash_id(1)
