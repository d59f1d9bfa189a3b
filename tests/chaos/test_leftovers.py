"""What a server leaves: found by who descends from whom, by mark, by folder; never by name."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rbee.chaos.leftovers import find_files, find_strays, recorded_instances
from rbee.chaos.processes import descendants
from tests.e2e.server import wait_until

# A server as far as this is concerned: it starts children, says who they are, and waits.
PARENT = """
import subprocess, sys
kept = []  # a Popen that is let go reaps its process, if that one is quick to end
def start(mark, *command):
    environment = {"RBEE_WORKER": mark} if mark else {}
    child = subprocess.Popen(command, env=environment, start_new_session=True)
    kept.append(child)
    print(child.pid, flush=True)
start("box/first", "/bin/sleep", "60")
start("box/gone", "/bin/sleep", "60")
start("", "/bin/sleep", "60")
if len(sys.argv) > 1:
    start("", "/bin/true")
sys.stdin.read()
"""


@contextmanager
def parent(*arguments: str) -> Iterator[tuple[int, list[int]]]:
    """Its pid, and those of its children: a worker, one of a worker that is gone, an unmarked."""
    command = [sys.executable, "-c", PARENT, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pids = [int(process.stdout.readline()) for _ in range(3 + len(arguments))]
        try:
            yield process.pid, pids
        finally:
            for each in descendants(process.pid):
                if not each.is_zombie:
                    subprocess.run(["/bin/kill", "-9", str(each.pid)], check=True)


def test_a_process_of_a_worker_that_is_gone_is_a_stray_and_others_are_none() -> None:
    with parent() as (server, [worker, stray, _warden]):
        assert find_strays(server, {worker}) == [
            f"process {stray} (sleep), of a worker that is gone"
        ]
        assert find_strays(server, {worker, stray}) == []


def test_a_zombie_below_the_server_is_told() -> None:
    with parent("zombie") as (server, [worker, stray, _warden, zombie]):
        told = f"zombie {zombie} ("

        def is_told() -> bool:
            return any(each.startswith(told) for each in find_strays(server, {worker, stray}))

        wait_until(is_told, 10, told)


def test_instances_are_known_by_what_a_server_has_put_down(tmp_path: Path) -> None:
    assert recorded_instances(tmp_path / "gone") == set()
    (tmp_path / "instance-abc.json").touch()
    (tmp_path / "worker-def.json").touch()
    assert recorded_instances(tmp_path) == {"abc"}


def test_sockets_and_folders_that_are_left_are_told(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(run_dir / "w-1"))
        left.listen()
        found = find_files(run_dir, set())
    assert "run directory run/w-1" in found
    assert "run directory run" in found
    assert f"socket {run_dir}/w-1" in found
