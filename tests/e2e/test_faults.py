"""Faults from outside, with the figures that an operator may count on (R1, R6, R7, R14)."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from rbee.chaos.worker_faults import FREEZER, frozen
from rbee.errors import ExitCode
from rbee.supervisor.kin import find_marked
from tests.e2e.server import Server, is_running, serving, synthetic_config, wait_until
from tests.e2e.stream import Stream
from tests.e2e.test_detection import tell
from tests.supervisor.held import need

# RBEE_TEST_ROUNDS=20 repeats what must hold each time.
SERVE = [sys.executable, "-m", "rbee", "serve", "--model", "synthetic"]
ROUNDS = int(os.environ.get("RBEE_TEST_ROUNDS", "3"))


def test_nothing_outlives_a_killed_supervisor_whatever_its_workers_do(tmp_path: Path) -> None:
    stubborn = synthetic_config(model="slots = 2", synthetic='fault = "ignore_all"')
    took_s: list[float] = []
    for number in range(ROUNDS):
        directory = tmp_path / str(number)
        directory.mkdir()
        server = Server(directory, stubborn).ready()
        pids = server.worker_pids()
        assert len(pids) == 2
        os.kill(pids[0], signal.SIGSTOP)  # not even a stopped one stays
        killed_s = time.monotonic()
        server.process.kill()
        server.process.wait(5)
        wait_all_gone(pids)
        took_s.append(time.monotonic() - killed_s)
        server.close()
    tell(f"all of 2 workers gone, after {ROUNDS} kills of the supervisor", took_s)


@pytest.mark.parametrize("deleted", ["the directory", "the records"])
def test_daemons_do_not_outlive_a_killed_supervisor_that_lost_its_run_directory(
    deleted: str, tmp_path: Path
) -> None:
    config = synthetic_config(model="slots = 2", synthetic='fault = "stray_child"')
    server = Server(tmp_path, config).ready()
    [record] = server.run_dir.glob("instance-*.json")
    prefix = record.stem.removeprefix("instance-") + "/"

    def left() -> list[int]:
        return [each.pid for each in find_marked(lambda mark: mark.startswith(prefix))]

    wait_until(lambda: len(left()) == 4, 10, "two workers and their daemons")
    if deleted == "the directory":
        shutil.rmtree(server.run_dir)
    else:
        for record in server.run_dir.glob("*.json"):
            record.unlink()
    server.process.kill()
    server.process.wait(5)
    wait_until(lambda: left() == [], 3, "the end of all that the workers started")
    assert len(server.wait_event("warden_swept", 5)["killed"]) >= 2
    server.close()


def test_a_second_signal_does_not_wait_for_answers_that_nobody_reads(tmp_path: Path) -> None:
    head = "[server]\nparked_bytes_max = 16777216\n"
    config = synthetic_config(head=head, synthetic="context_length = 100000")
    with serving(tmp_path, config.replace("= 200\n", "= 100000\n")) as server:
        body = b'{"model": "synthetic", "prompt": "hi", "max_tokens": 50000, "stream": true}'
        head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n"
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            client.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
            client.sendall(head.format(len(body)).encode() + body)
            all_made = 'rbee_completion_tokens_total{model="synthetic"} 50000.0'
            wait_until(lambda: all_made in server.get("/metrics").text, 60, "the last token")
            os.kill(server.pid, signal.SIGTERM)
            server.wait_event("shutdown_begun")
            time.sleep(1)
            assert server.process.poll() is None, "nothing held the shutdown up"
            os.kill(server.pid, signal.SIGTERM)
            assert server.process.wait(2) == 0


def test_a_shutdown_that_leaves_a_process_which_sigkill_does_not_end_says_so(
    tmp_path: Path,
) -> None:
    need(os.geteuid() == 0 and (FREEZER / "cgroup.procs").exists(), "root, and the freezer of v1")
    config = synthetic_config(model="slots = 2")
    server = Server(tmp_path, config).ready()
    hangs, other = server.worker_pids()
    with frozen(hangs):
        assert server.stop() == ExitCode.OS_ERROR
        assert server.wait_event("worker_unkillable")["pid"] == hangs
        assert server.wait_event("supervisor_stopped")["exit_code"] == ExitCode.OS_ERROR
        assert is_running(hangs)
        assert not is_running(other)
    server.close()
    wait_all_gone([hangs])
    with serving(tmp_path, config) as successor:  # all that was left is taken away now
        assert successor.stop() == ExitCode.OK
    assert not list(successor.run_dir.glob("*.json"))


def wait_all_gone(pids: list[int]) -> None:
    wait_until(lambda: not any(map(is_running, pids)), 2, "the end of all workers")


def test_workers_that_are_still_starting_do_not_outlive_a_killed_supervisor(tmp_path: Path) -> None:
    server = Server(tmp_path, synthetic_config(model="slots = 4")).started()
    pids = [server.wait_event("worker_spawned")["pid"] for _ in range(4)]
    server.process.kill()
    server.process.wait(5)
    wait_all_gone(pids)
    server.close()


def test_a_killed_worker_under_twenty_streams_is_replaced_within_its_backoff(
    tmp_path: Path,
) -> None:
    with serving(tmp_path, synthetic_config(model="slots = 2")) as server:
        body = {"model": "synthetic", "prompt": "hi", "max_tokens": 800}
        streams = [Stream(server.url, "/v1/completions", body).wait_begun() for _ in range(20)]
        victim = max(server.workers(), key=lambda worker: worker["requests"])["pid"]
        begun_s = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        interrupted = server.wait_event("requests_interrupted", 1)
        server.wait_event("worker_failed", 1)
        assert interrupted["go_on"] == interrupted["requests"] >= 10
        assert server.get("/health/ready").status_code == 200  # its sibling serves
        event = server.wait_event("worker_spawned", 5)
        assert time.monotonic() - begun_s < 1.2 + 0.3  # the log line comes a little later
        server.wait_event("worker_ready", 10, pid=event["pid"])
        for stream in streams:
            assert stream.wait_over().text == "".join(f"{number} " for number in range(800))
            assert stream.errors == []


def test_shutdown_is_not_held_up_by_a_client_that_stops_reading(tmp_path: Path) -> None:
    config = synthetic_config(
        head="[server]\ndrain_s = 1\n", synthetic="context_length = 1000000"
    ).replace("= 200", "= 20000")
    with serving(tmp_path, config) as server:
        body = {"model": "synthetic", "prompt": "hi", "max_tokens": 900_000}
        stalled = Stream(server.url, "/v1/completions", body, reads=False)
        # The kernel's buffers and the server's are full, and its request is given up.
        wait_until(lambda: server.workers()[0]["tokens"] > 0, 20, "its tokens")
        wait_until(lambda: server.workers()[0]["requests"] == 0, 20, "the request's end")
        begun_s = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - begun_s < 1 + 5 + 1
        stalled.cut()


def test_idle_connections_do_not_hold_up_shutdown(tmp_path: Path) -> None:
    with serving(tmp_path, synthetic_config()) as server:
        idle = [Stream.connect(server.url) for _ in range(50)]
        begun_s = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - begun_s < 2
        for connection in idle:
            connection.close()


def test_a_port_that_is_taken_is_said_plainly(tmp_path: Path) -> None:
    with serving(tmp_path, synthetic_config()) as server:
        address = server.url.removeprefix("http://")
        second = subprocess.run(
            [*SERVE, "--bind", address, "--run-dir", str(tmp_path / "other")],
            capture_output=True,
            timeout=30,
            check=False,
        )
        assert second.returncode == 69
        assert address.encode() in second.stderr
        assert b"Traceback" not in second.stderr
        assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--bind", "0.0.0.0:0"], 78, b"no API key"),
        (["--model", "file:/nowhere/model.gguf"], 78, b"nothing at"),
        (["--bind", "nonsense"], 78, b"HOST:PORT"),
        (["--run-dir", "/proc/rbee"], 73, b"run_dir"),
    ],
    ids=["public", "no model", "no address", "no directory"],
)
def test_what_cannot_be_served_is_refused_at_the_start(
    arguments: list[str], code: int, said: bytes, tmp_path: Path
) -> None:
    done = subprocess.run(
        [*SERVE, *arguments],
        cwd=tmp_path,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert b"Traceback" not in done.stderr


def test_many_worker_deaths_leak_no_descriptor_and_no_zombie(tmp_path: Path) -> None:
    head = "[server]\ndumpable = true\n[restart]\ndelay_s_min = 0\nfailures_max = 1000\n"
    with serving(tmp_path, synthetic_config(head=head)) as server:
        supervisor = psutil.Process(server.pid)
        pid = server.worker_pids()[0]
        for _ in range(3):  # the first deaths may open what stays open
            pid = kill_and_wait(server, pid)
        before = supervisor.num_fds()
        for _ in range(20):
            pid = kill_and_wait(server, pid)
        assert supervisor.num_fds() <= before + 1
        assert all(child.status() != psutil.STATUS_ZOMBIE for child in supervisor.children())
        # The lock, the instance's record, the local socket, one worker's socket and its record.
        assert len(list(server.run_dir.iterdir())) <= 5


def kill_and_wait(server: Server, pid: int) -> int:
    os.kill(pid, signal.SIGKILL)
    event = server.wait_event("worker_ready", 20)
    assert event["pid"] != pid
    new_pid: int = event["pid"]
    return new_pid
