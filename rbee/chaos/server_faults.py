"""Faults of the supervisor itself, and of what it stands on: descriptors, log, directories."""

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import trio

from rbee.chaos.engine_faults import PROMPT
from rbee.chaos.processes import children, descriptors, mark, signal_child
from rbee.chaos.scene import Scene

STOPPED_S: Final = 3.0
STARVED_S: Final = 6.0
STORM_S: Final = 3.0
STORM_PAUSE_S: Final = 0.001
HELD_S: Final = 3.0


async def kill_server(scene: Scene) -> None:
    """SIGKILL for the supervisor: all of its processes go, and the next one can start."""
    await scene.moment()
    scene.strike()
    scene.server.signal(signal.SIGKILL)
    scene.clients.stop()


async def kill_server_and_warden(scene: Scene) -> None:
    """SIGKILL for the supervisor and its warden: what they leave, the next one ends."""
    await scene.moment()
    pids = {row["pid"] for row in await scene.server.workers()}
    wardens = [
        each.pid
        for each in children(scene.server.pid)
        if each.pid not in pids and not mark(each.pid)
    ]
    scene.strike()
    for pid in wardens:
        signal_child(scene.server.pid, pid, signal.SIGKILL)
    scene.server.signal(signal.SIGKILL)
    scene.clients.stop()


async def terminate_twice(scene: Scene) -> None:
    """SIGTERM, and again soon after: it waits for nobody."""
    await scene.moment()
    scene.strike()
    scene.server.signal(signal.SIGTERM)
    await scene.server.wait_event("shutdown_begun")
    await scene.moment(0.0, 0.3)
    scene.server.signal(signal.SIGTERM)
    scene.clients.stop()


async def terminate_under_load(scene: Scene) -> None:
    """SIGTERM under load: what is open is answered, and the rest refused."""
    await scene.moment()
    scene.strike()
    scene.server.signal(signal.SIGTERM)


async def terminate_while_starting(scene: Scene) -> None:
    """SIGTERM while all workers start anew."""
    for row in await scene.server.workers():
        scene.signal_worker(row)
    await scene.wait_worker(lambda row: row["state"] in ("starting", "loading"), "starts")
    await scene.moment(0.0, 0.3)
    scene.strike()
    scene.server.signal(signal.SIGTERM)


async def storm_reloads(scene: Scene) -> None:
    """SIGHUP a thousand times and more: nobody notices."""
    await scene.moment()
    scene.strike()
    until_s = trio.current_time() + STORM_S
    while trio.current_time() < until_s:
        scene.server.signal(signal.SIGHUP)
        await trio.sleep(STORM_PAUSE_S)


async def pause_server(scene: Scene) -> None:
    """SIGSTOP for the supervisor for three seconds: no worker is taken for hung afterwards."""
    await scene.moment()
    scene.strike()
    scene.server.signal(signal.SIGSTOP)
    try:
        await trio.sleep(STOPPED_S)
    finally:
        scene.server.signal(signal.SIGCONT)
    await trio.sleep(STOPPED_S)  # time enough to draw the wrong conclusions


async def pause_box(scene: Scene) -> None:
    """SIGSTOP for the supervisor and all workers for three seconds, as a box that sleeps."""
    await scene.moment()
    scene.strike()
    rows = await scene.server.workers()
    scene.server.signal(signal.SIGSTOP)
    stopped = [row for row in rows if scene.try_signal(row, signal.SIGSTOP)]
    try:
        await trio.sleep(STOPPED_S)
    finally:
        for row in stopped:
            scene.try_signal(row, signal.SIGCONT)
            scene.must_go.discard(row["pid"])
        scene.server.signal(signal.SIGCONT)
    await trio.sleep(STOPPED_S)


async def exhaust_descriptors(scene: Scene) -> None:
    """No descriptor is to be had for three seconds, and a worker is killed meanwhile."""
    await scene.moment()
    row = await scene.busy_worker()  # without descriptors none gets busy that is not yet
    with _descriptors_at_most(scene.server.pid, descriptors(scene.server.pid)):
        scene.strike()
        scene.signal_worker(row)
        await trio.sleep(HELD_S)
    scene.strike()


async def close_log(scene: Scene) -> None:
    """Who reads the log goes away, and a worker is killed afterwards."""
    await scene.moment()
    await scene.server.close_log()
    row = await scene.busy_worker()
    scene.strike()
    scene.signal_worker(row)


async def stall_log(scene: Scene) -> None:
    """Who reads the log stands still for a while; a worker prints a lot meanwhile."""
    scene.strike()
    scene.server.stall_log()
    await scene.trigger(PROMPT)
    await trio.sleep(HELD_S)
    scene.server.go_on_reading()


async def delete_sockets(scene: Scene) -> None:
    """All in the run directory is deleted, and a worker is killed."""
    await scene.moment()
    for path in scene.server.run_dir.iterdir():
        with contextlib.suppress(OSError):
            path.unlink()
    row = await scene.busy_worker()
    scene.strike()
    scene.signal_worker(row)


async def delete_run_dir(scene: Scene) -> None:
    """The run directory is deleted, and a worker is killed."""
    await scene.moment()
    shutil.rmtree(scene.server.run_dir)
    row = await scene.busy_worker()
    scene.strike()
    scene.signal_worker(row)


async def fill_run_dir(scene: Scene) -> None:
    """The disk of the run directory is full for three seconds, and a worker is killed."""
    await _fill_and_kill(scene, scene.server.run_dir)


async def fill_state_dir(scene: Scene) -> None:
    """The disk of the state directory is full, and a worker is killed."""
    await _fill_and_kill(scene, scene.server.state_dir)


async def refuse_forks(scene: Scene) -> None:
    """No process can be started for three seconds, and a worker is killed meanwhile."""
    await scene.moment()
    with _no_more_tasks(scene.server.pid):
        row = await scene.busy_worker()
        scene.strike()
        scene.signal_worker(row)
        await trio.sleep(HELD_S)
    scene.strike()


async def starve(scene: Scene) -> None:
    """Four times as many busy processes as there are cores, for some seconds."""
    busy = [
        subprocess.Popen([sys.executable, "-I", "-S", "-c", "while True: pass"])  # noqa: ASYNC220
        for _ in range(4 * (os.cpu_count() or 1))
    ]
    try:
        scene.strike()
        await trio.sleep(STARVED_S)
    finally:
        for process in busy:
            process.kill()
            process.wait()
    scene.strike()


async def _fill_and_kill(scene: Scene, folder: Path) -> None:
    await scene.moment()
    with disk_full(folder):
        row = await scene.busy_worker()
        scene.strike()
        scene.signal_worker(row)
        await trio.sleep(HELD_S)
    scene.strike()


@contextmanager
def disk_full(folder: Path) -> Iterator[None]:
    """Take what room there is on the disk of that folder. It should be a small one."""
    filler = folder / "filler"
    try:
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        yield
    finally:
        filler.unlink()


@contextmanager
def _descriptors_at_most(pid: int, count: int) -> Iterator[None]:
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (count, hard))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def _no_more_tasks(pid: int) -> Iterator[None]:
    """A group of its own for one process, with room for the threads that it has."""
    own = Path(f"/proc/{pid}/cgroup").read_text("ascii")
    name = next(line.split(":")[2] for line in own.splitlines() if ":pids:" in line)
    outside = Path("/sys/fs/cgroup/pids") / name.lstrip("/")
    inside = outside / f"rbee-chaos-{pid}"
    inside.mkdir()
    try:
        (inside / "cgroup.procs").write_text(str(pid))
        (inside / "pids.max").write_text((inside / "pids.current").read_text())
        yield
    finally:
        (outside / "cgroup.procs").write_text(str(pid))
        for left in (inside / "cgroup.procs").read_text().split():
            (outside / "cgroup.procs").write_text(left)
        inside.rmdir()
