"""Real groups of the kernel: what stands in them is found, limited, counted and killed."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest

from rbee.supervisor.cgroup import Ground, Group, Place, own_places
from tests.supervisor.held import (
    DAEMON,
    go,
    identity_of,
    memory_limit_file,
    need,
    opened_ground,
    places_of,
    read_pids,
    running,
    wait_dead,
    wait_for,
)

MIB = 1024 * 1024


@contextmanager
def made(ground: Ground, name: str = "one") -> Iterator[Group]:
    group = ground.group(name)
    group.make()
    yield group
    group.kill()
    wait_for(lambda: group.remove() == [], "its folders' end")


@pytest.mark.parametrize("version", [1, 2])
def test_a_daemon_cannot_leave_its_group_and_is_killed_with_it(version: Literal[1, 2]) -> None:
    with opened_ground(places_of(version)) as ground:
        need(ground.means.kill, f"cgroup of version {version} to kill by")
        assert ground.means.kill == f"cgroup{version}"
        read_end, write_end = os.pipe()
        with made(ground) as group, running(DAEMON, str(write_end)) as process:
            group.admit(process.pid)
            go(process)
            [daemon] = [identity_of(pid) for pid in read_pids(read_end, 1)]
            assert process.wait(10) == 0
            assert group.pids() == [daemon.pid]
            group.kill()
            wait_dead(daemon)
            assert group.remove() == []
        os.close(read_end)
        os.close(write_end)


FORK_BOMB = """
import os, time
until = time.monotonic() + 20
while time.monotonic() < until:
    try: os.fork()
    except OSError: time.sleep(0.001)
"""


@pytest.mark.parametrize("version", [1, 2])
def test_a_fork_bomb_is_held_by_its_limit_and_killed(version: Literal[1, 2]) -> None:
    # Version 2 only kills here: its pids controller may be mounted as version 1.
    places = [place for place in own_places() if place.version == version]
    places += [place for place in own_places() if "pids" in place.controllers]
    with opened_ground(places, "pids") as ground:
        need(ground.means.kill and ground.means.pids, "cgroups to hold a fork bomb by")
        with made(ground) as group, running(FORK_BOMB) as process:
            group.limit(None, None, 40)
            group.admit(process.pid)
            go(process)
            wait_for(lambda: group.tasks_refused() > 0, "the first refusal")
            assert len(group.pids()) <= 40
            group.kill()
            wait_for(lambda: group.pids() == [], "the end of all")


HOG = "x = []\nwhile True: x.append(b'x' * 4194304)"


def test_a_hog_is_killed_at_its_limit_and_counted() -> None:
    with opened_ground(own_places(), "memory") as ground:
        need(ground.means.memory, "cgroup to limit memory by")
        with made(ground) as group, running(HOG) as process:
            group.limit(64 * MIB, None, None)
            assert int(memory_limit_file(group).read_text()) == 64 * MIB
            group.admit(process.pid)
            assert group.memory_kills() == 0
            go(process)
            assert process.wait(20) == -signal.SIGKILL
            assert group.memory_kills() >= 1  # version 2 counts the pick, and the group's end


def test_a_kill_by_somebody_else_is_not_counted_as_want_of_memory() -> None:
    with opened_ground(own_places(), "memory") as ground:
        need(ground.means.memory, "cgroup to limit memory by")
        with made(ground) as group, running("input()") as process:
            group.limit(64 * MIB, None, None)
            group.admit(process.pid)
            os.kill(process.pid, signal.SIGKILL)
            assert process.wait(10) == -signal.SIGKILL
            assert group.memory_kills() == 0


def test_a_spinning_process_gets_the_time_it_may_have() -> None:
    with opened_ground(own_places(), "cpu") as ground:
        need(ground.means.cpu, "cgroup to limit CPU time by")
        with made(ground) as group, running("while True: pass") as process:
            group.limit(None, 0.2, None)
            group.admit(process.pid)
            go(process)
            time.sleep(1.5)
            used_s = _cpu_s(process)
            assert used_s < 0.2 * 1.5 + 0.15, "twice its share and more would be no limit"
            assert used_s > 0.02


def _cpu_s(process: subprocess.Popen[bytes]) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_killing_one_group_leaves_its_neighbour_alone() -> None:
    with opened_ground(own_places()) as ground:
        need(ground.means.kill, "cgroup to kill by")
        with (
            made(ground, "one") as one,
            made(ground, "other") as other,
            running("input()") as killed,
            running("input()") as spared,
        ):
            one.admit(killed.pid)
            other.admit(spared.pid)
            one.kill()
            assert killed.wait(10) == -signal.SIGKILL
            assert other.pids() == [spared.pid]
            assert spared.poll() is None


def test_what_is_not_mounted_is_told_not_raised() -> None:
    ground = Ground("test", [])
    ground.open(["memory", "cpu"])
    assert (ground.means.kill, ground.means.memory, ground.means.cpu) == ("", "", "")
    assert [problem.partition(":")[0] for problem in ground.means.problems] == [
        "kill", "memory", "cpu",
    ]  # fmt: skip
    assert ground.group("any").paths == ()


def test_a_place_that_is_closed_to_us_is_told_not_raised(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ground = Ground("test", [Place(tmp_path / "file", 1, frozenset({"memory"}))])
    ground.open(["memory"])
    assert ground.means.memory == ""
    assert "memory: Not a directory" in ground.means.problems


def test_a_group_without_folders_holds_nobody() -> None:
    group = Group(())
    group.make()
    group.admit(os.getpid())
    group.kill()
    assert (group.pids(), group.memory_kills(), group.tasks_refused()) == ([], 0, 0)
    with pytest.raises(OSError, match=r"no cgroup has pids\.max"):
        group.limit(None, None, 20)


def test_folders_that_cannot_all_be_made_are_none_of_them_made(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    group = Group([tmp_path / "a" / "w", tmp_path / "missing" / "w"])
    with pytest.raises(FileNotFoundError):
        group.make()
    assert list((tmp_path / "a").iterdir()) == []


def test_on_version_2_all_of_a_worker_goes_at_its_limit_and_nothing_swaps(tmp_path: Path) -> None:
    # Plain files stand for the kernel's: what is written where. The kernel's own are elsewhere.
    for name in ("memory.max", "memory.swap.max", "memory.oom.group", "cpu.max", "pids.max"):
        (tmp_path / name).touch()
    (tmp_path / "memory.events").write_text("low 0\nhigh 0\nmax 7\noom 1\noom_kill 3\n")
    (tmp_path / "pids.events").write_text("max 5\n")
    group = Group([tmp_path])
    group.limit(64 * MIB, 1.5, 100)
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert written["memory.max"] == str(64 * MIB)
    assert written["memory.swap.max"] == "0"
    assert written["memory.oom.group"] == "1"
    assert written["cpu.max"] == "150000 100000"
    assert written["pids.max"] == "100"
    assert (group.memory_kills(), group.tasks_refused()) == (3, 5)
