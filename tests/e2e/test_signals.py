"""Signals to a real server, at any moment of its life: its end is orderly, its code as told."""

import functools
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rbee.errors import ExitCode
from rbee.signal_mask import HELD
from rbee.supervisor.start import START_S_MAX
from tests.e2e.server import Server, serving, synthetic_config, wait_until
from tests.e2e.stream import Stream


def config(directory: Path) -> str:
    return synthetic_config(head=f'[server]\nstate_dir = "{directory / "state"}"\n')


def is_blocked(pid: int, number: signal.Signals) -> bool:
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    return bool(int(status.partition("SigBlk:")[2].split()[0], 16) >> (number - 1) & 1)


def assert_ended_in_order(server: Server) -> None:
    """The last lines, the audit log's last entry, and nothing in the run directory."""
    names = [event["event"] for event in server.events]
    assert names[-2:] == ["audit_closed", "supervisor_stopped"], server.log
    files = sorted((server.run_dir.parent / "state" / "audit").glob("*.jsonl"))
    last = json.loads(files[-1].read_text("utf-8").splitlines()[-1])
    assert (last["event"], last["details"]["exit_code"]) == ("supervisor.stop", ExitCode.OK)
    assert not server.run_dir.exists() or list(server.run_dir.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_up_to_the_very_end_do_not_cut_it_short(
    number: signal.Signals, tmp_path: Path
) -> None:
    with serving(tmp_path, config(tmp_path)) as server:
        until_s = time.monotonic() + 20
        while server.process.poll() is None and time.monotonic() < until_s:
            server.signal(number)
            time.sleep(0.001)
        assert server.process.returncode == ExitCode.OK, server.log
    assert_ended_in_order(server)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_start_that_hangs_at_its_configuration_ends_in_time(
    number: signal.Signals, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "rbee.toml")  # to open it waits for a writer
    command = [sys.executable, "-m", "rbee", "serve", "--config", str(tmp_path / "rbee.toml")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_until(lambda: is_blocked(process.pid, number), 10, "signals are held back")
            process.send_signal(number)
            _, errors = process.communicate(timeout=START_S_MAX + 10)
        finally:
            process.kill()
    assert process.returncode == ExitCode.SOFTWARE
    assert errors.startswith("rbee: shutdown_overdue: ")
    assert errors.count("\n") == 1


def starting(directory: Path) -> Server:
    """A server that has but begun to import what it needs."""
    server = Server(directory, config(directory))
    holds = functools.partial(is_blocked, server.pid, signal.SIGTERM)
    try:
        wait_until(holds, 10, "signals are held back")
    except BaseException:
        server.process.kill()
        raise
    return server


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_start_ends_it_in_order(number: signal.Signals, tmp_path: Path) -> None:
    server = starting(tmp_path)
    server.signal(number)
    assert server.process.wait(20) == ExitCode.OK, server.log
    server.close()
    assert [event for event in server.events if event["level"] == "error"] == []
    assert_ended_in_order(server)


def test_sighup_during_the_start_waits_for_its_end_and_reloads(tmp_path: Path) -> None:
    server = starting(tmp_path)
    try:
        server.signal(signal.SIGHUP)
        server.ready()
        wait_until(lambda: "config_reloaded" in server.log_text, 10, "a reload")
        assert server.chat("hello", max_tokens=3).status_code == 200
    finally:
        server.close()


@pytest.mark.parametrize("delay_s", [0, 0.05, 0.15, 0.3])
def test_a_terminal_that_closes_during_the_start_ends_it(delay_s: float, tmp_path: Path) -> None:
    (tmp_path / "rbee.toml").write_text(config(tmp_path))
    command = [sys.executable, "-m", "rbee", "serve", "--config", str(tmp_path / "rbee.toml")]
    options = ["--bind", "127.0.0.1:0", "--run-dir", str(tmp_path / "run"), "--log-format", "json"]
    ours, theirs = pty.openpty()
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            ["setsid", "--ctty", *command, *options],
            stdin=theirs, stdout=theirs, stderr=log, env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
    os.close(theirs)
    try:
        holds = functools.partial(is_blocked, process.pid, signal.SIGHUP)
        wait_until(holds, 10, "signals are held back")
        time.sleep(delay_s)
        os.close(ours)
        assert process.wait(20) == ExitCode.OK
    finally:
        process.kill()
        process.wait(20)
    assert "supervisor_stopped" in (tmp_path / "log").read_text("utf-8")


@pytest.mark.parametrize("gap_s", [0.015, 0.035])
def test_a_second_signal_soon_after_the_first_does_not_cut_it_short(
    gap_s: float, tmp_path: Path
) -> None:
    with serving(tmp_path, config(tmp_path)) as server:
        server.signal(signal.SIGTERM)
        time.sleep(gap_s)
        assert server.stop() == ExitCode.OK, server.log
    assert_ended_in_order(server)


def test_a_slot_that_fails_for_good_while_it_drains_does_not_change_the_code(
    tmp_path: Path,
) -> None:
    restart = '[restart]\non_hopeless = "exit"\nfailures_max = 1\ndelay_s_min = 0.1\n'
    with serving(tmp_path, restart + config(tmp_path)) as server:
        [worker] = server.worker_pids()
        body = {"model": "synthetic", "prompt": "hi", "max_tokens": 4000}
        stream = Stream(server.url, "/v1/completions", body).wait_begun()
        server.signal(signal.SIGTERM)
        server.wait_event("shutdown_begun")
        os.kill(worker, signal.SIGKILL)
        os.kill(server.wait_event("worker_spawned")["pid"], signal.SIGKILL)
        server.wait_event("slot_failed")
        assert server.process.wait(20) == ExitCode.OK, server.log
        stream.wait_over()


def test_workers_start_with_no_signal_held_back(tmp_path: Path) -> None:
    with serving(tmp_path, config(tmp_path)) as server:
        assert all(is_blocked(server.pid, number) for number in HELD)
        [worker] = server.worker_pids()
        assert not any(is_blocked(worker, number) for number in HELD)
