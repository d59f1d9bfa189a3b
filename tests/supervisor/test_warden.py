"""The warden clears up after a supervisor that was killed, and only then."""

import json
import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from rbee.supervisor import warden_child
from rbee.supervisor.cgroup import own_places
from rbee.supervisor.instance import Instance
from rbee.supervisor.kin import MARK_NAME, is_alive
from rbee.supervisor.records import InstanceRecord, this_machine, write_record
from rbee.supervisor.warden import DONE
from rbee.supervisor.warden_child import keep_warden
from tests.supervisor.fakes import NoLog
from tests.supervisor.held import identity_of, running, wait_dead


def started_warden(run_dir: Path, instance: str) -> tuple[subprocess.Popen[bytes], int]:
    """A warden, and the pipe that it waits at."""
    read_end, write_end = os.pipe()
    warden = subprocess.Popen(
        [sys.executable, "-m", "rbee.supervisor.warden", str(read_end), str(run_dir), instance],
        pass_fds=[read_end],
        stderr=subprocess.PIPE,
    )
    os.close(read_end)
    return warden, write_end


def test_the_end_of_its_pipe_makes_it_sweep_and_end(tmp_path: Path) -> None:
    instance = InstanceRecord(secrets.token_hex(4), this_machine(), ())
    write_record(tmp_path, instance)
    with running("input()", environment={MARK_NAME: f"{instance.instance}/a"}) as process:
        warden, pipe = started_warden(tmp_path, instance.instance)
        os.close(pipe)
        _, told = warden.communicate(timeout=30)
        assert process.wait(10) == -signal.SIGKILL
        assert warden.returncode == 0
        event = json.loads(told)
        assert (event["event"], event["killed"]) == ("warden_swept", [process.pid])
    assert list(tmp_path.iterdir()) == []


def test_all_that_it_must_know_stands_in_its_arguments(tmp_path: Path) -> None:
    instance = secrets.token_hex(4)
    with running("input()", environment={MARK_NAME: f"{instance}/a"}) as process:
        warden, pipe = started_warden(tmp_path / "deleted", instance)
        os.close(pipe)
        _, told = warden.communicate(timeout=30)
        assert process.wait(10) == -signal.SIGKILL
        assert json.loads(told)["killed"] == [process.pid]


def test_told_that_all_is_done_it_ends_and_does_nothing(tmp_path: Path) -> None:
    instance = InstanceRecord(secrets.token_hex(4), this_machine(), ())
    write_record(tmp_path, instance)
    with running("input()", environment={MARK_NAME: f"{instance.instance}/a"}) as process:
        warden, pipe = started_warden(tmp_path, instance.instance)
        os.write(pipe, DONE)
        _, told = warden.communicate(timeout=30)
        os.close(pipe)
        assert (warden.returncode, told) == (0, b"")
        assert is_alive(identity_of(process.pid))
    assert (tmp_path / instance.name).exists()


def test_it_is_no_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rbee.supervisor.warden"],
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 64
    assert b"started by `rbee serve`" in done.stderr


async def test_a_warden_that_is_killed_is_told_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warden_child, "RETRY_AFTER_S", 0.0)
    log = NoLog()
    with Instance(tmp_path, own_places(), {}, log) as instance:
        async with trio.open_nursery() as nursery:
            await nursery.start(keep_warden, instance, log)
            [first] = await _wardens(log, 1)
            os.kill(first, signal.SIGKILL)
            _, second = await _wardens(log, 2)
            assert ("warden_ended", {"pid": first}) in log.events
            warden = identity_of(second)
            nursery.cancel_scope.cancel()
        wait_dead(warden)
    assert list(tmp_path.iterdir()) == []


async def _wardens(log: NoLog, count: int) -> list[int]:
    with trio.fail_after(10):
        while len(found := [fields["pid"] for event, fields in log.events
                            if event == "warden_started"]) < count:  # fmt: skip
            await trio.sleep(0.005)
    return found


async def test_without_descriptors_for_a_warden_the_supervisor_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_pipe() -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    log = NoLog()
    with Instance(tmp_path, [], {}, log) as instance:
        async with trio.open_nursery() as nursery:
            monkeypatch.setattr(os, "pipe", no_pipe)
            await nursery.start(keep_warden, instance, log)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert ("warden_not_started", {"problem": "Too many open files"}) in log.events
