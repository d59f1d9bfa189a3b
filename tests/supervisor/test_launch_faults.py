"""Faults around real processes: whatever cannot be had or done, nothing is left and nobody dies."""

import contextlib
import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from rbee.supervisor.adopted import Adopted
from rbee.supervisor.cgroup import Group
from rbee.supervisor.child import Child
from rbee.supervisor.custody import Custody, NoNotes, new_spawn
from rbee.supervisor.kin import Identity, Kin
from rbee.supervisor.launch import UNKILLABLE_AT_SHUTDOWN_AFTER_S, Launcher
from rbee.supervisor.limits import Holding, Limits
from rbee.supervisor.output import LINES_PER_S_MAX
from rbee.supervisor.process import Process
from rbee.supervisor.worker import WorkerExit
from rbee.supervisor.worker_life import LAST_WORDS_S, run_worker
from rbee.transport.link import LinkFactory
from tests.supervisor.fakes import Heard, NoLog, plan
from tests.supervisor.test_launch import QUICK, Spawner, launched, lines, wait_line


def open_descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}


async def wait_descriptors(wanted: set[str]) -> None:
    """ZeroMQ closes a socket's descriptors in a thread of its own."""
    with trio.move_on_after(5):
        while open_descriptors() - wanted:
            await trio.sleep(0.01)
    assert open_descriptors() - wanted == set()


def children() -> list[int]:
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text("ascii")
    return [int(pid) for pid in text.split()]


async def run(launch: Launcher) -> WorkerExit:
    with trio.fail_after(10):
        return await run_worker(launch, plan(), QUICK, Heard(), lambda _worker: None)


async def test_a_run_directory_that_is_gone_is_a_failure_of_the_worker_alone(
    tmp_path: Path,
) -> None:
    factory = LinkFactory(tmp_path / "gone")
    launch = Launcher(factory, QUICK, trio.Event(), NoLog(), Spawner("time.sleep(60)"))
    before = open_descriptors()
    ending = await run(launch)
    assert "cannot be started" in ending.fault
    assert "No such file or directory" in ending.fault
    factory.close()
    await wait_descriptors(before)


async def test_a_program_that_is_gone_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/gone/python")
    factory = LinkFactory(tmp_path)
    ending = await run(Launcher(factory, QUICK, trio.Event(), NoLog()))
    assert ending.fault == "cannot be started: No such file or directory: /gone/python"
    factory.close()


async def test_a_process_that_dies_before_the_gate_is_reaped(tmp_path: Path) -> None:
    def spawn(
        argv: list[str], environment: dict[str, str], descriptors: list[int], output_fd: int
    ) -> Process:
        process = Process(["/bin/true"], environment, descriptors, output_fd)
        while Path(f"/proc/{process.pid}/stat").read_text().split()[2] != "Z":
            time.sleep(0.001)
        return process

    factory = LinkFactory(tmp_path)
    launch = Launcher(factory, QUICK, trio.Event(), NoLog(), spawn)
    await run(launch)  # the context of ZeroMQ has its own descriptors
    before, had = open_descriptors(), children()
    ending = await run(launch)
    assert str(ending) == "exit code 0", "how it ended is told, not that a pipe broke"
    await wait_descriptors(before)
    assert children() == had
    factory.close()


async def test_a_process_that_cannot_be_watched_does_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_pidfd(pid: int, flags: int = 0) -> int:
        raise OSError(24, "Too many open files")

    factory = LinkFactory(tmp_path)
    launch = Launcher(factory, QUICK, trio.Event(), NoLog(), Spawner("time.sleep(60)"))
    had = children()
    monkeypatch.setattr(os, "pidfd_open", no_pidfd)
    ending = await run(launch)
    assert ending.fault == "cannot be started: Too many open files"
    assert children() == had
    factory.close()


async def test_pipes_that_cannot_all_be_had_are_all_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, made = os.pipe, list[tuple[int, int]]()

    def two_pipes_at_most() -> tuple[int, int]:
        if len(made) == 2:
            raise OSError(24, "Too many open files")
        made.append(real())
        return made[-1]

    factory = LinkFactory(tmp_path)
    launch = Launcher(factory, QUICK, trio.Event(), NoLog(), Spawner("time.sleep(60)"))
    await run(Launcher(factory, QUICK, trio.Event(), NoLog(), Spawner("sys.exit(0)")))
    before = open_descriptors()
    monkeypatch.setattr(os, "pipe", two_pipes_at_most)
    ending = await run(launch)
    assert ending.fault == "cannot be started: Too many open files"
    await wait_descriptors(before)
    factory.close()


async def test_ignored_sigchld_hides_no_crash(tmp_path: Path) -> None:
    # As after `trap "" CHLD` in the shell that started us.
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        async with launched("time.sleep(60)", tmp_path) as (child, _, _scope, _hurry):
            os.kill(child.pid, signal.SIGKILL)
            with trio.fail_after(5):
                assert await child.wait_exit() == (None, signal.SIGKILL)
    finally:
        signal.signal(signal.SIGCHLD, before)


async def test_the_last_words_of_a_worker_are_heard_although_it_ended_at_once(
    tmp_path: Path,
) -> None:
    # 40 messages and the end, all while the supervisor was busy with something else.
    said = 40
    script = f"""
import json, zmq
boot = json.loads(DOCUMENT)
context = zmq.Context()
socket = context.socket(zmq.DEALER)
socket.connect("ipc://" + boot["link_path"])
print("connected", flush=True)
time.sleep(0.2)
for number in range({said}):
    socket.send_multipart([b"%d" % number])
socket.close(linger=1000)
context.term()
os._exit(0)
"""
    heard: list[bytes] = []

    async def listen(child: Child) -> None:
        with contextlib.suppress(trio.ClosedResourceError):
            while True:
                heard.extend(await child.receive())

    factory, log = LinkFactory(tmp_path), NoLog()
    launch = Launcher(factory, QUICK, trio.Event(), log, Spawner(script))
    async with trio.open_nursery() as nursery:
        child = await nursery.start(launch, "w-0")
        nursery.start_soon(listen, child)
        await wait_line(log, "connected")
        time.sleep(0.6)  # noqa: ASYNC251  # the supervisor is busy: the worker ends meanwhile
        await child.wait_exit()
        await trio.sleep(LAST_WORDS_S)  # as whoever owns a worker waits
        nursery.cancel_scope.cancel()
    factory.close()
    assert heard == [b"%d" % number for number in range(said)]


async def test_a_worker_that_prints_without_end_does_not_stop_the_supervisor(
    tmp_path: Path,
) -> None:
    script = "block = b'x' + bytes([10])\nwhile True: os.write(1, block * 32768)"

    class SlowLog(NoLog):
        def debug(self, event: str, **fields: Any) -> None:
            time.sleep(0.00002)  # what a line of structlog costs
            super().debug(event, **fields)

        info = warning = error = debug

    factory, log = LinkFactory(tmp_path), SlowLog()
    launch = Launcher(factory, QUICK, trio.Event(), log, Spawner(script))
    async with trio.open_nursery() as nursery:
        await nursery.start(launch, "w-0")
        worst_s = 0.0
        for _ in range(20):
            begun_s = trio.current_time()
            await trio.sleep(0.01)
            worst_s = max(worst_s, trio.current_time() - begun_s)
        nursery.cancel_scope.cancel()
    factory.close()
    assert worst_s < 0.3
    assert len(lines(log)) <= 3 * LINES_PER_S_MAX
    assert any(event == "worker_output_omitted" for event, _ in log.events)


@contextlib.contextmanager
def unkillable(tmp_path: Path, log: NoLog) -> Iterator[Launcher]:
    """A launcher of processes as one that hangs in a driver: their end never comes to be seen."""

    class Unkillable(Process):
        async def wait_ended(self) -> None:
            await trio.sleep_forever()

        def signal_group(self, number: signal.Signals) -> None:
            return

    class Unkilled(Custody):
        def kill(self) -> None:
            return

    processes: list[Process] = []

    def spawn(
        argv: list[str], environment: dict[str, str], descriptors: list[int], output_fd: int
    ) -> Process:
        own = [sys.executable, "-I", "-c", "import time; time.sleep(60)"]
        processes.append(Unkillable(own, environment, descriptors, output_fd))
        return processes[-1]

    def custody(_worker_id: str) -> Custody:
        kin = Kin(f"loose/{new_spawn()}", Group(()))
        return Unkilled(kin, Limits(), Holding("", "", ""), Adopted(), NoNotes(), survivors.extend)

    survivors: list[Identity] = []
    factory = LinkFactory(tmp_path)
    try:
        yield Launcher(factory, QUICK, trio.Event(), log, spawn, custody=custody)
        assert survivors == [each.identity for each in processes], "their memory is not given back"
    finally:
        factory.close()
        for process in processes:
            Process.signal_group(process, signal.SIGKILL)
            Process.reap(process)


async def test_a_process_that_not_even_sigkill_ends_does_not_hold_shutdown(
    tmp_path: Path,
) -> None:
    log = NoLog()
    with unkillable(tmp_path, log) as launch, trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(launch, "w-0")
            nursery.cancel_scope.cancel()
        assert any(event == "worker_unkillable" for event, _ in log.events)


async def test_a_process_that_not_even_sigkill_ends_does_not_hold_its_slot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rbee.supervisor.launch.UNKILLABLE_AFTER_S", 0.5)
    log = NoLog()
    with unkillable(tmp_path, log) as launch, trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            child = await nursery.start(launch, "w-0")
            begun_s = trio.current_time()
            child.kill("a test")
            child.kill("again: it gains no time by that")
            assert await child.wait_exit() == (None, None)
            assert trio.current_time() - begun_s >= 0.5
            nursery.cancel_scope.cancel()
        assert any(event == "worker_unkillable" for event, _ in log.events)


async def test_a_killed_process_is_not_asked_once_more_at_shutdown(tmp_path: Path) -> None:
    log = NoLog()
    with unkillable(tmp_path, log) as launch, trio.fail_after(UNKILLABLE_AT_SHUTDOWN_AFTER_S + 2):
        async with trio.open_nursery() as nursery:
            child = await nursery.start(launch, "w-0")
            child.kill("a test")
            nursery.cancel_scope.cancel()
        signals = [fields["signal"] for event, fields in log.events if event == "worker_killed"]
        assert signals == ["SIGKILL"]


async def test_a_socket_that_cannot_be_taken_away_ends_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *, missing_ok: bool = False) -> None:
        raise OSError(30, "Read-only file system")

    factory, log = LinkFactory(tmp_path), NoLog()
    launch = Launcher(factory, QUICK, trio.Event(), log, Spawner("sys.exit(3)"))
    monkeypatch.setattr(Path, "unlink", refuse)
    ending = await run(launch)
    assert ending.exit_code == 3
    assert any(event == "socket_left" for event, _ in log.events)
    factory.close()


async def test_who_could_not_be_looked_for_is_looked_for_until_that_can_be_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []

    def look(is_meant: Callable[[str], bool]) -> list[Identity]:
        looks.append(is_meant)
        if len(looks) < 20:
            raise OSError(errno.EMFILE, "Too many open files")
        return []

    async with launched("time.sleep(0.3)", tmp_path) as (child, log, _, _hurry):
        monkeypatch.setattr("rbee.supervisor.kin.find_marked", look)
        await child.wait_exit()
    assert len(looks) >= 20
    assert "cgroups_left" not in [event for event, _ in log.events]
