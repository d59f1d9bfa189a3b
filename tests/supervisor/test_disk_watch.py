"""Disks that get full: told once, before they are, and once when they are well again."""

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from rbee.config import ServerConfig
from rbee.supervisor import disk_watch
from rbee.supervisor.disk_watch import DiskWatch, Space, judge_space, measure_space
from tests.supervisor.fakes import NoLog
from tests.supervisor.held import need

GIB = 1 << 30
MIB = 1 << 20


def problem(total: int, free: int, *, was_low: bool = False, **more: int) -> str:
    return judge_space(Space(total, free, **more), 0.1, GIB, was_low=was_low)


@pytest.mark.parametrize(
    ("total", "free", "is_low"),
    [
        (2000 * GIB, 2 * GIB, False),  # a thousandth, and enough for days
        (2000 * GIB, GIB - 1, True),
        (64 * MIB, 32 * MIB, False),  # a small tmpfs never has a GiB
        (64 * MIB, 6 * MIB, True),
        (5 * GIB, GIB // 2, False),
        (5 * GIB, GIB // 2 - 1, True),
    ],
)
def test_low_is_what_is_below_both_limits(total: int, free: int, is_low: bool) -> None:
    assert bool(problem(total, free)) is is_low


def test_places_for_files_run_out_too() -> None:
    assert problem(GIB, GIB, total_files=1000, free_files=99) == "99 of 1000 files are free"
    assert problem(GIB, GIB, total_files=0, free_files=0) == ""  # btrfs counts none


@given(st.integers(0, 1 << 45), st.integers(0, 1 << 45))
def test_who_was_low_needs_more_to_be_well(total: int, free: int) -> None:
    free = min(free, total)
    assert problem(total, free) == "" or problem(total, free, was_low=True) != ""


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    need(os.geteuid() == 0 and shutil.which("mount"), "root, who may mount a small tmpfs")
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=False
    )
    need(done.returncode == 0, "leave to mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


async def test_a_disk_that_fills_up_is_told_once_and_heals_alone(
    tmpfs: Path,
) -> None:
    log, filler = NoLog(), tmpfs / "filler"
    watch = DiskWatch({"state_dir": tmpfs / "not" / "yet"}, ServerConfig(), log)
    states = []
    for fill in (0, 1000, 1000, 0, 0):
        filler.write_bytes(bytes(fill * 1024))
        await watch._look("state_dir")
        [view] = watch.views()
        states.append(view.state)
    assert states == ["ok", "low", "low", "ok", "ok"]
    assert [name for name, _ in log.events] == ["disk_low", "disk_well_again"]
    assert log.events[0][1]["place"] == "state_dir"
    assert "bytes are free" in log.events[0][1]["problem"]


async def test_a_disk_that_does_not_answer_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(disk_watch, "LOOK_S_MAX", 0.05)
    may_end = threading.Event()
    measured = 0

    def hang(folder: Path) -> Space:
        nonlocal measured
        measured += 1
        may_end.wait(30)
        return Space(100, 100)

    log = NoLog()
    watch = DiskWatch({"run_dir": Path("/")}, ServerConfig(), log, hang)
    try:
        with trio.fail_after(5):
            await watch._look("run_dir")
            await watch._look("run_dir")
    finally:
        may_end.set()
    [view] = watch.views()
    assert (view.state, view.free_bytes, measured) == ("unknown", None, 1)
    assert [name for name, _ in log.events] == ["disk_unknown"]


async def test_a_folder_that_may_not_be_looked_at_is_unknown() -> None:
    def refuse(folder: Path) -> Space:
        raise PermissionError(13, "Permission denied")

    watch = DiskWatch({"run_dir": Path("/")}, ServerConfig(), NoLog(), refuse)
    await watch._look("run_dir")
    assert watch.views()[0].problem == "Permission denied"


def test_a_folder_that_is_not_there_yet_is_measured_where_it_will_be(tmp_path: Path) -> None:
    assert measure_space(tmp_path / "a" / "b").total_bytes == measure_space(tmp_path).total_bytes
