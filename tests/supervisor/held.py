"""Processes and cgroups for tests, ended and taken away whatever happens."""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest

from rbee.supervisor.cgroup import Ground, Group, Place, own_places
from rbee.supervisor.kin import Identity, is_alive, start_ticks

# Leaves its parent, its session and its environment behind, and heeds nothing that may be ignored.
DAEMON = """
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP): signal.signal(number, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        program = "import os, sys, time; said = b'%d' % os.getpid() + bytes([10]);"
        program += "os.write(int(sys.argv[1]), said); time.sleep(60)"
        output = sys.argv[1]
        os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", program, output], {})
    os._exit(0)
os.wait()
"""


def places_of(version: Literal[1, 2]) -> list[Place]:
    """Ours of that version, to be divided as if there were no others."""
    return [place for place in own_places() if place.version == version]


@contextmanager
def opened_ground(places: Sequence[Place], *controllers: str) -> Iterator[Ground]:
    ground = Ground(f"test{secrets.token_hex(4)}", places)
    ground.open(controllers)
    try:
        yield ground
    finally:
        Group(ground.folders).kill()
        wait_for(lambda: ground.close() == [], "its groups' end")


def need(found: object, what: str) -> None:
    """Skip, by name, what this machine does not have."""
    if not found:
        pytest.skip(f"this machine has no {what}")


@contextmanager
def running(
    script: str, *arguments: str, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits for a line before it runs ``script``."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import sys; sys.stdin.readline()\n{script}",
            *arguments,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **(environment or {})},
        start_new_session=True,
        pass_fds=[int(each) for each in arguments if each.isdecimal()],
    )
    try:
        # The parent goes on while the kernel is still setting up what the child is to see.
        wait_for(lambda: _has_environment(process.pid), "its environment")
        yield process
    finally:
        process.kill()
        process.wait(10)
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


def _has_environment(pid: int) -> bool:
    return Path(f"/proc/{pid}/environ").read_bytes() != b""


def go(process: subprocess.Popen[bytes]) -> None:
    """Let it run its script."""
    assert process.stdin is not None
    process.stdin.write(b"go\n")
    process.stdin.flush()


def identity_of(pid: int) -> Identity:
    return Identity(pid, start_ticks(pid))


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 10) -> None:
    until_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until_s, f"not within {timeout_s} s: {what}"
        time.sleep(0.002)


def wait_dead(*identities: Identity) -> None:
    wait_for(lambda: not any(map(is_alive, identities)), "their end")


def read_pids(descriptor: int, count: int) -> list[int]:
    """As many pids as processes were to write there."""
    text = b""
    while len(text.split()) < count or not text.endswith(b"\n"):
        part = os.read(descriptor, 4096)
        assert part, f"{count} pids were to come, got {text!r}"
        text += part
    return [int(pid) for pid in text.split()]


def memory_limit_file(group: Group) -> Path:
    return next(
        path / name
        for path in group.paths
        for name in ("memory.max", "memory.limit_in_bytes")
        if (path / name).exists()
    )
