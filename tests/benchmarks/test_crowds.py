"""The commands for C1 and C2: who is counted as what, and that they run against the real server."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import load_client
import overload
import pytest
from overload import Client, hear, judge

BENCHMARKS = Path(overload.__file__).parent

BUSY = b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n"
ANSWER = b'HTTP/1.1 200 OK\r\n\r\ndata: {"content":""}\n\ndata: {"content":"0 "}\n\n'


@pytest.fixture(scope="module")
def client() -> Path:
    return load_client.build()


@pytest.fixture
def ends() -> Iterator[tuple[Client, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield Client(ours, begun_s=0.0), theirs


def test_a_client_is_admitted_with_its_first_token(ends: tuple[Client, socket.socket]) -> None:
    admitted, server = ends
    for byte in ANSWER:
        assert admitted.first_s is None
        server.send(bytes([byte]))
        assert hear(admitted)
        if b'"content":"0 ' in admitted.heard:
            break
    assert admitted.first_s is not None
    assert admitted.refused_s is None
    server.close()
    assert not hear(admitted)
    assert admitted.refused_s is None


@pytest.mark.parametrize(
    ("heard", "how"),
    [
        (BUSY, "Retry-After"),
        (BUSY.replace(b"429 Too Many Requests", b"503 Service Unavailable"), "Retry-After"),
        (BUSY.replace(b"429", b"500"), "otherwise"),
        (BUSY.replace(b"retry-after", b"x"), "otherwise"),
        (b"", "reset"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "otherwise"),
    ],
    ids=["429", "503", "500", "no Retry-After", "reset", "cut off"],
)
def test_a_client_is_refused_rightly_or_otherwise(
    heard: bytes, how: str, ends: tuple[Client, socket.socket]
) -> None:
    client, server = ends
    server.sendall(heard)
    server.close()
    while hear(client):
        pass
    assert client.how == how
    assert client.first_s is None


GOOD: dict[str, Any] = {
    "offered": 5, "admitted": 2, "refused": {"Retry-After": 2, "reset": 1, "otherwise": 0},
    "refused_slowest_ms": 999.0, "first_token_p95_ms": 14.5, "health_p99_ms": 50.0,
    "health_errors": 0,
}  # fmt: skip
ALONE: dict[str, Any] = {"admitted": 2, "first_token_p95_ms": 10.0}


def test_what_is_promised_is_judged_good() -> None:
    assert judge(ALONE, GOOD, 2) == []


@pytest.mark.parametrize(
    "change",
    [
        {"admitted": 3},
        {"refused": {"Retry-After": 2, "reset": 0, "otherwise": 1}},
        {"refused": {"Retry-After": 2, "reset": 0, "otherwise": 0}},
        {"refused_slowest_ms": 1001.0},
        {"first_token_p95_ms": 14.6},
        {"first_token_p95_ms": float("nan")},
        {"health_p99_ms": 50.1},
        {"health_errors": 1},
    ],
    ids=str,
)
def test_what_does_not_hold_is_told(change: dict[str, Any]) -> None:
    assert judge(ALONE, GOOD | change, 2)


def run(script: str, *options: str) -> dict[str, Any]:
    command = [sys.executable, str(BENCHMARKS / script), "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_over_the_capacity_clients_are_refused_and_the_others_are_served(client: Path) -> None:
    found = run("overload.py", "--offered", "60", "--capacity", "20", "--ramp-s", "0.3",
                "--hold-s", "0.7")  # fmt: skip
    assert (found["alone"]["admitted"], found["crowded"]["admitted"]) == (20, 20)
    assert found["crowded"]["refused"] == {"Retry-After": 40, "reset": 0, "otherwise": 0}


def test_held_streams_bring_every_token(client: Path) -> None:
    found = run("held_streams.py", "--streams", "20", "--ramp-s", "0.1", "--run-s", "0.5")
    assert found["is_good"], found
    assert found["report"]["whole"] == 20
