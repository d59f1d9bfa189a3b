"""Faults that come over a worker from outside: signals, at the worst moments."""

import contextlib
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

import trio

from rbee.chaos.scene import SERVING, Missed, Row, Scene

KILL_OFTEN_S: Final = 60.0
CHURN_RESTARTS: Final = 50

FREEZER: Final = Path("/sys/fs/cgroup/freezer")
THAWED_S: Final = 2.0

# A worker whose answers are about to end has drained before it can be struck.
DRAINS_MAX: Final = 5


async def kill_idle(scene: Scene) -> None:
    """SIGKILL for a worker that has nothing to do."""
    row = await scene.wait_worker(lambda row: row["state"] == "ready", "is ready")
    await scene.moment(0.0, 0.3)
    scene.strike()
    scene.signal_worker(row)


def end_busy_by(number: signal.Signals) -> Callable[[Scene], Awaitable[None]]:
    async def end_busy(scene: Scene) -> None:
        await scene.moment()
        row = await scene.busy_worker()
        scene.strike()
        scene.signal_worker(row, number)

    end_busy.__doc__ = f"{number.name} for a worker in the middle of its answers."
    return end_busy


async def kill_in_prefill(scene: Scene) -> None:
    """SIGKILL for a worker that reads prompts."""
    row = await scene.wait_worker(
        lambda row: row["requests"] > 0 and row["phase"] == "prefill", "reads prompts"
    )
    await scene.moment(0.0, 0.2)
    scene.strike()
    scene.signal_worker(row)


async def kill_while_loading(scene: Scene) -> None:
    """SIGKILL for a busy worker, and for its successor while that one loads."""
    row = await scene.busy_worker()
    scene.strike()
    scene.signal_worker(row)
    row = await scene.replacement(row, ("loading",))
    await scene.moment(0.0, 0.5)
    scene.strike()
    scene.signal_worker(row)


async def kill_while_registering(scene: Scene) -> None:
    """SIGKILL for a busy worker, and for its successor before that one is known."""
    row = await scene.busy_worker()
    scene.strike()
    scene.signal_worker(row)
    row = await scene.replacement(row, ("starting",))
    await scene.moment(0.0, 0.15)
    scene.strike()
    scene.signal_worker(row)


async def kill_once_ready(scene: Scene) -> None:
    """SIGKILL for a busy worker, and twice for its successor as soon as it is ready."""
    row = await scene.busy_worker()
    scene.strike()
    scene.signal_worker(row)
    for _ in range(2):
        row = await scene.replacement(row, SERVING)
        scene.strike()
        scene.signal_worker(row)


async def kill_while_restarting(scene: Scene) -> None:
    """SIGKILL for a worker that an operator has asked to be restarted, while it drains."""
    await scene.moment()
    for _ in range(DRAINS_MAX):
        row = await scene.busy_worker()
        await scene.server.command(row["slot"], "restart")
        await scene.moment(0.0, 0.2)
        scene.strike()
        if scene.try_signal(row):
            return
    raise Missed(f"{DRAINS_MAX} workers had drained before the fault")


async def kill_in_shutdown(scene: Scene) -> None:
    """SIGTERM for the server, and SIGKILL for a busy worker while it drains."""
    await scene.moment()
    row = await scene.busy_worker()
    scene.strike()
    scene.server.signal(signal.SIGTERM)
    await scene.server.wait_event("shutdown_begun")
    await scene.moment(0.0, 0.2)
    scene.signal_worker(row)
    scene.clients.stop()


async def stop_busy(scene: Scene) -> None:
    """SIGSTOP for a worker in the middle of its answers."""
    await scene.moment()
    row = await scene.busy_worker()
    scene.strike()
    scene.signal_worker(row, signal.SIGSTOP)


async def stop_and_continue(scene: Scene) -> None:
    """SIGSTOP for a busy worker, and SIGCONT before it counts as hung."""
    await scene.moment()
    row = await scene.busy_worker()
    scene.strike()
    scene.signal_worker(row, signal.SIGSTOP)
    await trio.sleep(1.0)
    scene.signal_worker(row, signal.SIGCONT)
    scene.must_go.discard(row["pid"])


async def hang_in_kernel(scene: Scene) -> None:
    """A busy worker stands still so that not even SIGKILL ends it, until its slot has another."""
    await scene.moment()
    row = await scene.busy_worker()
    scene.strike()
    scene.must_go.add(row["pid"])
    with frozen(row["pid"]):
        await scene.replacement(row, SERVING)


async def kill_all(scene: Scene) -> None:
    """SIGKILL for all workers at once: nobody is left to go on with the answers."""
    await scene.moment()
    scene.strike()
    if not sum(scene.try_signal(row) for row in await scene.server.workers()):
        raise Missed("no worker was there to be killed")


async def restart_busy(scene: Scene) -> None:
    """An operator asks for the restart of a worker in the middle of its answers."""
    await scene.moment()
    row = await scene.busy_worker()
    scene.strike()
    await scene.server.command(row["slot"], "restart")
    scene.must_go.add(row["pid"])


async def kill_often(scene: Scene) -> None:
    """SIGKILL for half of the workers, each second for a minute."""
    killed = 0
    scene.strike()
    with trio.move_on_after(KILL_OFTEN_S):
        while True:
            rows = [row for row in await scene.server.workers() if row["state"] in SERVING]
            for row in scene.chance.sample(rows, min(len(rows), scene.server.setting.slots // 2)):
                killed += scene.try_signal(row)
            await trio.sleep(1.0)
    scene.notes.append(f"{killed} workers killed")
    scene.strike()


async def kill_now_and_then(scene: Scene) -> None:
    """SIGKILL for one worker each two seconds for a minute, under a crowd of streams."""
    killed = 0
    scene.strike()
    with trio.move_on_after(KILL_OFTEN_S):
        while True:
            rows = [row for row in await scene.server.workers() if row["state"] in SERVING]
            killed += bool(rows) and scene.try_signal(scene.chance.choice(rows))
            await trio.sleep(2.0)
    scene.notes.append(f"{killed} workers killed")
    scene.strike()


async def churn(scene: Scene) -> None:
    """An operator asks for fifty restarts, each as soon as the one before it is done."""
    scene.strike()
    left = iter(range(CHURN_RESTARTS))
    async with trio.open_nursery() as nursery:
        for row in await scene.server.workers():
            nursery.start_soon(_restart_again, scene, row, left)
    scene.strike()


async def _restart_again(scene: Scene, row: Row, left: Iterator[int]) -> None:
    for _ in left:
        await scene.server.command(row["slot"], "restart")
        row = await scene.replacement(row, SERVING)  # the next one


async def start_many(scene: Scene) -> None:
    """SIGKILL for all of sixteen workers: as many start at once."""
    await kill_all(scene)


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Signals do not act on it meanwhile: as on a process that hangs in a driver."""
    group = FREEZER / f"rbee-chaos-{pid}"
    group.mkdir()
    try:
        (group / "cgroup.procs").write_text(str(pid))
        (group / "freezer.state").write_text("FROZEN")
        yield
    finally:
        (group / "freezer.state").write_text("THAWED")
        until_s = time.monotonic() + THAWED_S
        while (group / "cgroup.procs").read_text() and time.monotonic() < until_s:
            time.sleep(0.01)  # what was sent to it acts now
        group.rmdir()
