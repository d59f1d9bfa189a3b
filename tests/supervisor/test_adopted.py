"""Orphans of descendants come to us, and are reaped; nobody else's child is."""

import subprocess
import sys
from collections.abc import Callable
from errno import EMFILE
from pathlib import Path
from typing import cast

import pytest
import trio
import trio.testing

from rbee.logs import Log
from rbee.supervisor.adopted import Adopted, become_subreaper, keep_reaping
from tests.supervisor.fakes import NoLog
from tests.supervisor.held import wait_for

# All of it in a process of its own: this one must not become a subreaper.
ORPHAN = "import os; os.setsid(); os.fork() and os._exit(0)"


def in_own_process(program: Callable[[], None]) -> None:
    name = program.__name__
    done = subprocess.run(
        [sys.executable, "-c", f"from tests.supervisor.test_adopted import {name}; {name}()"],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == b"done\n"


def orphan(sleep_s: float) -> None:
    """A grandchild in another session, whose parent has ended."""
    script = f"{ORPHAN}; import time; time.sleep({sleep_s})"
    subprocess.run([sys.executable, "-I", "-S", "-c", script], check=True)


def wait_zombie(pid: int) -> None:
    stat = Path(f"/proc/{pid}/stat")
    wait_for(lambda: stat.read_text().rpartition(")")[2].split()[0] == "Z", "its end")


def reap_orphan() -> None:
    assert become_subreaper() == ""
    adopted = Adopted()
    orphan(0)
    reaped: list[int] = []
    while not reaped or adopted.living():
        reaped += adopted.reap()
    print("done")


def test_an_orphan_that_ends_is_reaped() -> None:
    in_own_process(reap_orphan)


def kill_orphan() -> None:
    assert become_subreaper() == ""
    adopted = Adopted()
    orphan(60)
    [identity] = adopted.living()
    assert adopted.kill() == [identity.pid]
    wait_for(lambda: identity.pid in adopted.reap(), "its end")
    assert not Path(f"/proc/{identity.pid}").exists()
    print("done")


def test_an_orphan_that_runs_is_killed_and_reaped() -> None:
    in_own_process(kill_orphan)


def leave_children_of_others() -> None:
    before = subprocess.Popen([sys.executable, "-c", ""], start_new_session=True)
    adopted = Adopted()
    born = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"], start_new_session=True)
    adopted.born(born.pid)
    plain = subprocess.Popen([sys.executable, "-c", "raise SystemExit(8)"])
    for child in (before, born, plain):
        wait_zombie(child.pid)
    assert adopted.reap() == []
    assert adopted.living() == []
    assert (before.wait(1), born.wait(1), plain.wait(1)) == (0, 7, 8)
    print("done")


def test_whose_exit_somebody_waits_for_is_left_to_him() -> None:
    in_own_process(leave_children_of_others)


def forget_unkillable() -> None:
    adopted = Adopted()
    child = subprocess.Popen([sys.executable, "-c", ""], start_new_session=True)
    adopted.born(child.pid)
    wait_zombie(child.pid)
    assert adopted.reap() == []
    adopted.forget(child.pid)  # its owner has given it up
    assert adopted.reap() == [child.pid]
    print("done")


def test_one_that_its_owner_gave_up_is_reaped_when_it_ends_after_all() -> None:
    in_own_process(forget_unkillable)


async def test_reaping_goes_on_when_the_kernel_could_not_be_asked(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    adopted, log = Adopted(), NoLog()
    said: list[list[int] | OSError] = [OSError(EMFILE, "full"), OSError(EMFILE, "full"), [], [7]]

    def reap() -> list[int]:
        answer = said.pop(0) if said else []
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(adopted, "reap", reap)
    with trio.move_on_after(10):
        await keep_reaping(adopted, cast(Log, log))
    told = [event for event, _ in log.events]
    assert told == ["strays_not_seen", "stray_reaped"]
