"""The command line against the real server, as an operator uses it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.server import Server, serving

CONFIG = """
[[model]]
ref = "bee-tiny"
slots = 2
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("cli"), CONFIG) as server:
        yield server


def rbee(server: Server, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rbee", *arguments, "--url", server.url],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def test_chat_answers_a_question(server: Server, tmp_path: Path) -> None:
    done = rbee(server, "chat", "What is 2 plus 3?", "--temperature", "0", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "5" in done.stdout


def test_status_shows_the_workers_and_that_the_server_is_ready(
    server: Server, tmp_path: Path
) -> None:
    done = rbee(server, "status", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "bee-tiny-0" in done.stdout
    assert "llamacpp" in done.stdout
    rows = json.loads(rbee(server, "status", "--json", cwd=tmp_path).stdout)
    assert len(rows["workers"]) == 2


def test_an_operator_stops_and_restarts_a_worker(server: Server, tmp_path: Path) -> None:
    pids = set(server.worker_pids())
    assert rbee(server, "workers", "stop", "bee-tiny-1", cwd=tmp_path).returncode == 0
    server.wait_event("worker_gone", 20, worker="bee-tiny-1")
    assert "stopped" in rbee(server, "workers", "list", cwd=tmp_path).stdout
    assert rbee(server, "workers", "restart", "bee-tiny-1", cwd=tmp_path).returncode == 0
    server.wait_event("worker_ready", 20, worker="bee-tiny-1")
    assert len(pids & set(server.worker_pids())) == 1


def test_an_unknown_slot_is_refused_and_the_known_are_named(server: Server, tmp_path: Path) -> None:
    done = rbee(server, "workers", "restart", "nobody-0", cwd=tmp_path)
    assert done.returncode == 64
    assert "bee-tiny-0" in done.stderr


def test_doctor_finds_the_port_taken_and_no_traceback(server: Server, tmp_path: Path) -> None:
    config = tmp_path / "rbee.toml"
    config.write_text(f'[server]\nbind = "{server.url.removeprefix("http://")}"\n')
    done = subprocess.run(
        [sys.executable, "-m", "rbee", "doctor", "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        check=False,
    )
    assert "Traceback" not in done.stderr
    findings = json.loads(done.stdout)["findings"]
    assert any("port" in finding["name"] for finding in findings)
