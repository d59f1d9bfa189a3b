"""Kin without a cgroup: told by their mark and their descent, killed by identity."""

import os
import signal
import subprocess
import sys

from rbee.supervisor.cgroup import Group
from rbee.supervisor.kin import (
    MARK_NAME,
    Identity,
    Kin,
    anonymous_bytes,
    find_marked,
    is_alive,
    kill_identity,
    kill_marked,
    read_mark,
)
from tests.supervisor.held import DAEMON, go, identity_of, read_pids, running, wait_dead, wait_for

MARK = f"test/{os.getpid()}"


def is_ours(mark: str) -> bool:
    return mark == MARK


def test_the_mark_is_inherited_by_a_daemon_that_keeps_its_environment() -> None:
    keeps = DAEMON.replace(", {})", ", os.environ)")
    read_end, write_end = os.pipe()
    with running(keeps, str(write_end), environment={MARK_NAME: MARK}) as process:
        kin = Kin(MARK, Group(()))
        go(process)
        [daemon] = [identity_of(pid) for pid in read_pids(read_end, 1)]
        assert process.wait(10) == 0
        assert kin.living() == [daemon.pid]
        assert read_mark(daemon.pid) == MARK
        kin.kill()
        wait_dead(daemon)
        assert kin.living() == []
    os.close(read_end)
    os.close(write_end)


def test_descendants_that_took_the_mark_off_are_found_while_their_parents_live() -> None:
    script = f"""
import subprocess, time
subprocess.Popen([{sys.executable!r}, "-I", "-S", "-c", "import time; time.sleep(60)"], env={{}})
time.sleep(60)
"""
    with running(script, environment={MARK_NAME: MARK}) as process:
        go(process)
        wait_for(lambda: len(find_marked(is_ours)) == 2, "the child")
        killed = kill_marked(is_ours)
        assert process.pid in killed
        assert len(killed) == 2
        assert process.wait(10) == -signal.SIGKILL
        wait_for(lambda: find_marked(is_ours) == [], "the child's end")


def test_a_fork_bomb_is_stopped_before_it_is_killed() -> None:
    script = """
import os, time
until = time.monotonic() + 20
for _ in range(3): os.fork()
while time.monotonic() < until:
    if os.fork() == 0: os._exit(0)
    os.wait()
"""
    with running(script, environment={MARK_NAME: MARK}) as process:
        go(process)
        wait_for(lambda: len(find_marked(is_ours)) >= 8, "8 processes")
        for _ in range(20):
            if not kill_marked(is_ours):
                break
        wait_for(lambda: find_marked(is_ours) == [], "the end of all")


def test_a_number_that_was_given_away_is_not_killed() -> None:
    with running("input()") as process:
        real = identity_of(process.pid)
        older = Identity(real.pid, real.start_ticks - 1)
        assert not kill_identity(older, lambda _mark: True)
        assert not is_alive(older)
        assert is_alive(real)


def test_a_process_with_another_mark_is_not_killed() -> None:
    with running("input()", environment={MARK_NAME: "other/1"}) as process:
        assert not kill_identity(identity_of(process.pid), is_ours)
        assert is_alive(identity_of(process.pid))
        assert kill_identity(identity_of(process.pid), lambda mark: mark == "other/1")
        assert process.wait(10) == -signal.SIGKILL


def test_who_looks_is_never_among_the_found() -> None:
    # It may itself have been started by a worker.
    program = f"""
from rbee.supervisor.kin import kill_marked
assert kill_marked(lambda mark: mark == {MARK!r}) == []
print("still here")
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, MARK_NAME: MARK},
        capture_output=True,
        timeout=30,
        check=True,
    )
    assert done.stdout == b"still here\n"


def test_a_zombie_is_not_alive() -> None:
    with running("") as process:
        identity = identity_of(process.pid)
        go(process)
        wait_dead(identity)
        assert process.wait(10) == 0


def test_memory_is_that_which_only_swap_could_take() -> None:
    script = "x = b'x' * (64 * 1024 * 1024); print('taken', flush=True); input()"
    with running(script, environment={MARK_NAME: MARK}) as process:
        go(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"taken\n"
        held = anonymous_bytes(process.pid)
        assert 64 * 1024**2 <= held < 96 * 1024**2
    assert anonymous_bytes(process.pid) == 0
