"""Workers under the real launcher and a real instance: held, limited, and all of them gone."""

import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from rbee.errors import ConfigError
from rbee.supervisor.cgroup import Group, Place, own_places
from rbee.supervisor.instance import Instance
from rbee.supervisor.kin import Kin, is_alive, read_mark
from rbee.supervisor.launch import EngineChild, Launcher
from rbee.supervisor.limits import Limits
from rbee.supervisor.process import Process
from rbee.supervisor.records import read_records
from rbee.transport.link import LinkFactory
from tests.supervisor.fakes import NoLog
from tests.supervisor.held import DAEMON, identity_of, need
from tests.supervisor.test_launch import QUICK, Spawner, lines, wait_line

MIB = 1024 * 1024
NO_LIMITS = Limits()
NOWHERE: Sequence[Place] = ()  # as where no cgroups are mounted

# Starts a daemon that leaves session, parent and environment behind, and says its pid.
WITH_DAEMON = f"""
import subprocess
said, says = os.pipe()
daemon = [sys.executable, "-I", "-S", "-c", {DAEMON!r}, str(says)]
subprocess.run(daemon, check=True, pass_fds=[says])
print(os.read(said, 32).decode().strip(), flush=True)
"""
HOG = "x = []\nwhile True: x.append(b'x' * 4194304); time.sleep(0.002)"


@asynccontextmanager
async def held(
    script: str, run_dir: Path, places: Sequence[Place], limits: Limits = NO_LIMITS
) -> AsyncIterator[tuple[EngineChild, NoLog, Instance, trio.CancelScope]]:
    run_dir.mkdir()
    log, factory = NoLog(), LinkFactory(run_dir)
    try:
        with Instance(run_dir, places, {"w-0": limits}, log) as instance:
            launch = Launcher(
                factory, QUICK, trio.Event(), log, Spawner(script), custody=instance.custody
            )
            async with trio.open_nursery() as nursery:
                child = await nursery.start(launch, "w-0")
                await wait_line(log, "through the gate")
                yield child, log, instance, nursery.cancel_scope
                nursery.cancel_scope.cancel()
            folders = instance._ground.folders
        assert not any(folder.exists() for folder in folders), "a cgroup was left behind"
    finally:
        factory.close()
    assert list(run_dir.iterdir()) == [], "a record or a socket was left behind"


async def daemon_of(log: NoLog) -> int:
    with trio.fail_after(10):
        while not (said := [line for line in lines(log) if line.isdecimal()]):
            await trio.sleep(0.01)
    return int(said[0])


def fields_of(log: NoLog, event: str) -> dict[str, Any]:
    return next(fields for name, fields in log.events if name == event)


def has_pids_controller() -> bool:
    return any("pids" in place.controllers or place.version == 2 for place in own_places())


async def test_at_the_gate_the_worker_is_in_its_cgroup_marked_and_written_down(
    tmp_path: Path,
) -> None:
    async with held("time.sleep(60)", tmp_path / "run", own_places()) as (child, _, instance, _s):
        need(instance.means.kill, "cgroup to kill by")
        [record] = read_records(tmp_path / "run").workers
        assert (record.pid, record.worker_id) == (child.pid, "w-0")
        assert record.start_ticks == identity_of(child.pid).start_ticks
        assert read_mark(child.pid) == f"{instance.name}/{record.spawn}"
        assert child.custody.living() == [child.pid]
        folders = [folder for folder in instance._ground.folders if folder.exists()]
        assert all(Group([folder]).pids() == [child.pid] for folder in folders)


async def test_a_daemon_goes_when_its_worker_is_killed(tmp_path: Path) -> None:
    script = WITH_DAEMON + "time.sleep(60)"
    async with held(script, tmp_path / "run", own_places()) as (child, log, instance, _):
        need(instance.means.kill, "cgroup to kill by")
        daemon = identity_of(await daemon_of(log))
        os.kill(child.pid, signal.SIGKILL)
        assert await child.wait_exit() == (None, signal.SIGKILL)
        assert not is_alive(daemon), "gone before the exit is told"
        assert fields_of(log, "worker_reaped")["strays"] == [daemon.pid]


async def test_a_daemon_goes_when_its_worker_ends_well(tmp_path: Path) -> None:
    script = WITH_DAEMON + "sys.exit(0)"
    async with held(script, tmp_path / "run", own_places()) as (child, log, instance, _):
        need(instance.means.kill, "cgroup to kill by")
        daemon = identity_of(await daemon_of(log))
        assert await child.wait_exit() == (0, None)
        assert not is_alive(daemon)


async def test_without_cgroups_a_daemon_that_keeps_its_mark_goes_too(tmp_path: Path) -> None:
    script = WITH_DAEMON.replace(", {})", ", os.environ)") + "time.sleep(60)"
    async with held(script, tmp_path / "run", NOWHERE) as (child, log, _, _scope):
        daemon = identity_of(await daemon_of(log))
        child.kill("a test")
        assert await child.wait_exit() == (None, signal.SIGKILL)
        assert not is_alive(daemon)


@pytest.mark.parametrize("places", [own_places(), NOWHERE], ids=["cgroup", "watch"])
async def test_a_hog_is_ended_at_its_limit_and_named(
    places: Sequence[Place], tmp_path: Path
) -> None:
    limits = Limits(memory_bytes_max=100 * MIB)
    async with held(HOG, tmp_path / "run", places, limits) as (child, log, instance, _):
        if places:
            need(instance.means.memory, "cgroup to limit memory by")
        with trio.fail_after(20):
            assert await child.wait_exit() == (None, signal.SIGKILL)
        assert child.cause.startswith("out_of_memory: ")
        assert str(100 * MIB) in child.cause
        assert fields_of(log, "worker_reaped")["cause"] == child.cause
        assert ("memory_only_watched" in dict(log.events)) == (not instance.means.memory)


async def test_a_helper_that_is_killed_for_memory_takes_its_worker_with_it(
    tmp_path: Path,
) -> None:
    # On version 1 the kernel picks one process; the rest would go on half dead.
    hog = f"import time\n{HOG}"
    script = f"""
import subprocess
child = subprocess.Popen([sys.executable, "-I", "-S", "-c", {hog!r}])
child.wait()
print("helper ended", flush=True)
time.sleep(60)
"""
    limits = Limits(memory_bytes_max=100 * MIB)
    async with held(script, tmp_path / "run", own_places(), limits) as (child, _, instance, _s):
        need(instance.means.memory, "cgroup to limit memory by")
        with trio.fail_after(20):
            assert await child.wait_exit() == (None, signal.SIGKILL)
        assert child.cause.startswith("out_of_memory: killed by the kernel")


async def test_a_kill_by_an_operator_is_not_named_out_of_memory(tmp_path: Path) -> None:
    limits = Limits(memory_bytes_max=100 * MIB)
    async with held("time.sleep(60)", tmp_path / "run", own_places(), limits) as (child, _, _i, _s):
        os.kill(child.pid, signal.SIGKILL)
        assert await child.wait_exit() == (None, signal.SIGKILL)
        assert child.cause == ""


async def test_a_worker_that_may_start_no_more_tasks_is_told_of(tmp_path: Path) -> None:
    need(has_pids_controller(), "cgroup to limit tasks by")
    script = """
import threading
try:
    for _ in range(100): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
except RuntimeError: print("refused", flush=True)
time.sleep(60)
"""
    limits = Limits(tasks_max=20)
    async with held(script, tmp_path / "run", own_places(), limits) as (_, log, _i, _s):
        await wait_line(log, "refused")
        with trio.fail_after(5):
            while "worker_tasks_refused" not in dict(log.events):
                await trio.sleep(0.01)


async def test_where_it_cannot_be_put_into_its_cgroup_a_worker_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawned: list[Process] = []
    spawner = Spawner("time.sleep(60)")

    def spawn(
        argv: list[str], environment: dict[str, str], descriptors: list[int], output_fd: int
    ) -> Process:
        spawned.append(spawner(argv, environment, descriptors, output_fd))
        return spawned[-1]

    def refuse(_self: Group, _pid: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Group, "admit", refuse)
    factory, log = LinkFactory(tmp_path), NoLog()
    with Instance(tmp_path, own_places(), {"w-0": Limits()}, log) as instance:
        launch = Launcher(factory, QUICK, trio.Event(), log, spawn, custody=instance.custody)
        with pytest.raises(BaseExceptionGroup) as caught:
            async with trio.open_nursery() as nursery:
                await nursery.start(launch, "w-0")
        assert caught.group_contains(OSError, match="No space left")
        assert not Path(f"/proc/{spawned[0].pid}").exists()
    factory.close()
    assert list(tmp_path.iterdir()) == []


async def test_a_worker_without_limits_runs_although_its_cgroup_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_self: Group) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Group, "make", refuse)
    async with held("time.sleep(60)", tmp_path / "run", own_places()) as (child, log, _, _s):
        assert "cgroup_failed" in dict(log.events)
        assert child.custody.living() == [child.pid], "found by its mark"


async def test_a_worker_with_limits_does_not_run_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_self: Group) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Group, "make", refuse)
    limited = {"w-0": Limits(memory_bytes_max=100 * MIB)}
    with (
        Instance(tmp_path, own_places(), limited, NoLog()) as instance,
        pytest.raises(OSError, match="No space left"),
    ):
        instance.custody("w-0")


async def test_a_gpu_whose_process_survives_sigkill_takes_no_worker_until_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As one that hangs in the driver: no signal reaches the daemon until the test ends it.
    monkeypatch.setattr(Kin, "kill", lambda _self: None)
    monkeypatch.setattr("rbee.supervisor.launch.STRAYS_GONE_S", 0.05)
    script = WITH_DAEMON.replace(", {})", ", os.environ)") + "sys.exit(0)"
    factory, log = LinkFactory(tmp_path), NoLog()
    workers = {"w-0": NO_LIMITS, "w-1": NO_LIMITS}
    with Instance(tmp_path, NOWHERE, workers, log, {"w-0": 3, "w-1": 5}) as instance:
        launch = Launcher(
            factory, QUICK, trio.Event(), log, Spawner(script), custody=instance.custody
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(launch, "w-0")
            daemon = identity_of(await daemon_of(log))
        assert fields_of(log, "processes_unkillable")["pids"] == [daemon.pid]
        assert fields_of(log, "gpu_quarantined")["gpu"] == 3
        with pytest.raises(OSError, match=f"GPU 3 is in quarantine: process {daemon.pid} of w-0"):
            instance.custody("w-0")
        assert instance.custody("w-1").release() == [], "another GPU is not concerned"
        assert len(read_records(tmp_path).workers) == 1, "its successor is to know of it"
        os.kill(daemon.pid, signal.SIGKILL)
        with trio.fail_after(5):
            while is_alive(daemon):
                await trio.sleep(0.01)
        assert instance.custody("w-0").release() == []
    factory.close()


def test_what_nothing_can_hold_stops_the_start_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tasks_max cannot be held here"):
        Instance(tmp_path, NOWHERE, {"w-0": Limits(tasks_max=50)}, NoLog()).__enter__()
    assert list(tmp_path.iterdir()) == []


def test_an_engine_that_ends_before_its_gate_opens_leaves_nothing(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    done = Process([sys.executable, "-I", "-m", "rbee.engine", str(read_end), str(read_end)],
                   {"PATH": os.environ["PATH"]}, [read_end], 2)  # fmt: skip
    os.close(read_end)
    os.close(write_end)  # the supervisor is gone before it wrote what the worker waits for
    trio.run(done.wait_ended)
    assert done.reap() == 82
