"""Faults that come from inside a worker, by the synthetic engine: docs/chaos.md.

Each lies in wait for a request with the text `PROMPT`, or is the whole of the model "second".
"""

from collections.abc import Awaitable, Callable
from typing import Final

import httpx2
import trio

from rbee.chaos.scene import WAIT_TIMEOUT_S, Scene
from rbee.chaos.server import DrillError

PROMPT: Final = "[now]"
LIVE_TIMEOUT_S: Final = 2.0
WATCH_S: Final = 8.0
LOOK_EVERY_S: Final = 0.05

FaultOf = Callable[[Scene], Awaitable[None]]


def guilty(about: str) -> FaultOf:
    """A request that ends the worker each time: found, and refused; the others go on."""

    async def ask_guilty(scene: Scene) -> None:
        await scene.moment()
        await scene.trigger(PROMPT, "request_quarantined")
        scene.strike()  # the second time

    ask_guilty.__doc__ = about
    return ask_guilty


async def use_up_memory(scene: Scene) -> None:
    """Three requests, one after the other, make the engine run out of memory: no slot is lost."""
    await scene.moment()
    for number in range(3):
        await scene.trigger(f"{PROMPT} {number}", "request_quarantined")
    scene.strike()


def harmless(about: str) -> FaultOf:
    """A request that goes wrong and is served all the same."""

    async def ask_harmless(scene: Scene) -> None:
        await scene.moment()
        await scene.trigger(PROMPT)

    ask_harmless.__doc__ = about
    return ask_harmless


def never_serves(about: str, cause: str, failures: int) -> FaultOf:
    """A second model that cannot be served: it is given up, and the first is not touched.

    Args:
      failures: after how many the slot is given up.
    """

    async def ask_for_it(scene: Scene) -> None:
        scene.strike()
        row = await scene.wait_worker(
            lambda row: row["model"] == "second" and row["state"] == "failed", "is given up"
        )
        if (row["cause"], row["restarts"] + 1) != (cause, failures):
            told = f"{row['cause']!r} after {row['restarts'] + 1} failures"
            raise DrillError(f"given up for {told}, expected {cause!r} after {failures}")
        await scene.trigger("anything", "model_unavailable", model="second")

    ask_for_it.__doc__ = about
    return ask_for_it


async def flood(scene: Scene) -> None:
    """A worker that sends a thousand messages in each step: the server stays answerable."""
    await scene.moment()
    scene.strike()
    slowest_s = 0.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.trigger, PROMPT)
        for _ in range(20):
            began_s = trio.current_time()
            await _ask_health(scene)
            slowest_s = max(slowest_s, trio.current_time() - began_s)
            await trio.sleep(LOOK_EVERY_S)
    scene.notes.append(f"slowest health answer {slowest_s * 1000:.0f} ms")
    rows = await scene.server.workers()
    for row in rows:  # the flood would go on for as long as the worker lives
        if row["steps"]:
            await scene.server.command(row["slot"], "restart")
            scene.must_go.add(row["pid"])
    scene.strike()


async def grow_silent(scene: Scene) -> None:
    """A worker stops to beat while its tokens go on: it is ended once there are none."""
    await scene.moment()
    await scene.trigger(PROMPT)
    scene.clients.pause()
    scene.strike()
    with trio.move_on_after(WAIT_TIMEOUT_S):
        while not scene.server.count("worker_failed"):
            await trio.sleep(LOOK_EVERY_S)
    scene.clients.go_on()


async def watch(scene: Scene) -> None:
    """Tokens come very slowly: nobody is ended for it."""
    scene.strike()
    await trio.sleep(WATCH_S)


async def see_ignored(scene: Scene) -> None:
    """Workers that heed no word and no signal: SIGKILL ends them at the end."""
    await scene.moment()
    scene.strike()


async def kill_parent(scene: Scene) -> None:
    """SIGKILL for a worker that has started a daemon, which left its session."""
    await scene.moment()
    row = await scene.busy_worker()
    scene.strike()
    scene.signal_worker(row)


async def _ask_health(scene: Scene) -> None:
    try:
        answer = await scene.server.get("/health/live", LIVE_TIMEOUT_S)
    except httpx2.HTTPError as error:
        raise DrillError(f"/health/live within {LIVE_TIMEOUT_S:g} s: {error!r}") from error
    if answer.status_code != 200:
        raise DrillError(f"/health/live: status {answer.status_code}")
