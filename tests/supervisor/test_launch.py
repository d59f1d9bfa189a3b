"""Real processes under the real launcher: started, captured, stopped by the ladder, reaped."""

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
import trio

from rbee.config import WorkerConfig
from rbee.supervisor.kin import start_ticks
from rbee.supervisor.launch import EngineChild, Launcher
from rbee.supervisor.process import Process
from rbee.transport.link import LinkFactory
from tests.supervisor.fakes import NoLog

QUICK = WorkerConfig(term_after_s=0.2, kill_after_s=0.5)

# What every one of these workers does first: it passes the gate, as a real one does.
GATE = """
import os, signal, sys, time
boot_fd, life_fd = int(sys.argv[-2]), int(sys.argv[-1])
DOCUMENT = b""
while part := os.read(boot_fd, 4096): DOCUMENT += part
print("through the gate", flush=True)
"""


class Spawner:
    """Starts a script instead of an engine, with the launcher's own descriptors."""

    def __init__(self, script: str) -> None:
        self._script = script
        self.environment: dict[str, str] = {}
        self.argv: list[str] = []

    def __call__(
        self, argv: list[str], environment: dict[str, str], descriptors: list[int], output_fd: int
    ) -> Process:
        self.environment, self.argv = environment, argv
        own = [sys.executable, "-I", "-c", GATE + self._script, *argv[-2:]]
        return Process(own, environment, descriptors, output_fd)


@asynccontextmanager
async def launched(
    script: str, tmp_path: Path, limits: WorkerConfig = QUICK
) -> AsyncIterator[tuple[EngineChild, NoLog, trio.CancelScope, trio.Event]]:
    log, hurry, factory = NoLog(), trio.Event(), LinkFactory(tmp_path)
    launch = Launcher(factory, limits, hurry, log, Spawner(script))
    try:
        async with trio.open_nursery() as nursery:
            child = await nursery.start(launch, "w-0")
            await wait_line(log, "through the gate")
            yield child, log, nursery.cancel_scope, hurry
            nursery.cancel_scope.cancel()
    finally:
        factory.close()
    assert list(tmp_path.iterdir()) == [], "a socket was left behind"


async def wait_line(log: NoLog, line: str) -> None:
    with trio.fail_after(10):
        while line not in lines(log):
            await trio.sleep(0.01)


def lines(log: NoLog) -> list[str]:
    return [fields["line"] for event, fields in log.events if event == "worker_output"]


def kills(log: NoLog) -> list[str]:
    return [fields["signal"] for event, fields in log.events if event == "worker_killed"]


def is_running(pid: int) -> bool:
    return bool(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)


async def test_a_worker_starts_although_the_threads_of_others_hang(tmp_path: Path) -> None:
    others = trio.to_thread.current_default_thread_limiter()
    others.total_tokens = 1
    with trio.fail_after(10):
        async with others, launched("time.sleep(60)", tmp_path) as (child, _, _scope, _hurry):
            assert is_running(child.pid)


async def test_the_exit_of_a_worker_is_seen_with_its_code_and_its_last_words(
    tmp_path: Path,
) -> None:
    async with launched("print('last words'); sys.exit(7)", tmp_path) as (child, log, _, _hurry):
        with trio.fail_after(5):
            assert await child.wait_exit() == (7, None)
        await wait_line(log, "last words")


async def test_a_crash_is_seen_at_once(tmp_path: Path) -> None:
    async with launched("time.sleep(60)", tmp_path) as (child, _, _scope, _hurry):
        os.kill(child.pid, signal.SIGKILL)
        begun_s = trio.current_time()
        assert await child.wait_exit() == (None, signal.SIGKILL)
        assert trio.current_time() - begun_s < 1


async def test_a_worker_that_obeys_sigterm_is_not_killed(tmp_path: Path) -> None:
    async with launched("time.sleep(60)", tmp_path) as (child, log, scope, _):
        scope.cancel()
    assert kills(log) == ["SIGTERM"]
    assert not is_running(child.pid)


async def test_a_worker_that_ignores_everything_is_killed(tmp_path: Path) -> None:
    script = "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True)\n"
    async with launched(script + "while True: time.sleep(60)", tmp_path) as (child, log, scope, _):
        await wait_line(log, "deaf")
        scope.cancel()
    assert kills(log) == ["SIGTERM", "SIGKILL"]
    assert not is_running(child.pid)


async def test_a_stopped_worker_is_killed(tmp_path: Path) -> None:
    async with launched("time.sleep(60)", tmp_path) as (child, _, scope, _hurry):
        os.kill(child.pid, signal.SIGSTOP)
        scope.cancel()
    assert not is_running(child.pid)


async def test_in_a_hurry_nobody_is_asked_twice(tmp_path: Path) -> None:
    script = "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True)\n"
    slow = WorkerConfig(term_after_s=30, kill_after_s=60)
    script += "while True: time.sleep(60)"
    async with launched(script, tmp_path, slow) as (_, log, scope, hurry):
        await wait_line(log, "deaf")
        hurry.set()
        with trio.fail_after(5, shield=True):
            scope.cancel()
    assert kills(log) == ["SIGKILL"]


async def test_grandchildren_go_with_their_worker(tmp_path: Path) -> None:
    script = """
import subprocess
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print("grandchild", child.pid, flush=True)
time.sleep(60)
"""
    async with launched(script, tmp_path) as (child, log, _, _hurry):
        with trio.fail_after(10):
            while not any(line.startswith("grandchild") for line in lines(log)):
                await trio.sleep(0.01)
        grandchild = int(next(line for line in lines(log) if "grandchild" in line).split()[1])
        assert is_running(grandchild)
        child.kill("a test")
        await child.wait_exit()
    with trio.fail_after(5):
        while is_running(grandchild):
            await trio.sleep(0.01)


async def test_the_end_of_the_supervisors_pipe_reaches_the_worker(tmp_path: Path) -> None:
    script = "print('life ends:', os.read(life_fd, 1) == b'', flush=True)"
    async with launched(script, tmp_path) as (child, log, _, _hurry):
        assert is_running(child.pid)
        assert "life ends: True" not in lines(log)


async def test_a_very_long_line_is_cut_not_kept(tmp_path: Path) -> None:
    script = "print('x' * 1_000_000, flush=True); print('after', flush=True); time.sleep(60)"
    async with launched(script, tmp_path) as (_, log, _scope, _hurry):
        await wait_line(log, "after")
        assert max(len(line) for line in lines(log)) <= 4096


async def test_nothing_secret_is_in_argv_or_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RBEE_CANARY_KEY", "canary")
    async with launched("time.sleep(60)", tmp_path) as (child, _, _scope, _hurry):
        process = psutil.Process(child.pid)
        assert "RBEE_CANARY_KEY" not in process.environ()
        seen = " ".join([*process.cmdline(), *process.environ().values()])
        assert child.secret.hex() not in seen


def test_start_ticks_tell_two_processes_apart() -> None:
    assert start_ticks(os.getpid()) == start_ticks(os.getpid())
    assert start_ticks(os.getpid()) != start_ticks(1)
    with pytest.raises(OSError, match="No such file"):
        start_ticks(2**22 + 1)


async def test_what_a_worker_said_before_it_ended_is_still_received(tmp_path: Path) -> None:
    script = """
import json, zmq
boot = json.loads(DOCUMENT)
link = zmq.Context().socket(zmq.DEALER)
link.connect("ipc://" + boot["link_path"])
for number in range(5):
    link.send_multipart([b"last words", b"%d" % number])
link.close(linger=1000); link.context.term()
os._exit(3)
"""
    async with launched(script, tmp_path) as (child, _, _scope, _hurry):
        assert await child.wait_exit() == (3, None)
        with trio.fail_after(2):
            said = [await child.receive() for _ in range(5)]
    assert said == [[b"last words", b"%d" % number] for number in range(5)]
