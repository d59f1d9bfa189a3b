"""Runs one simulation under trio's deterministic scheduler: the same seed, the same history."""

import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import trio
from trio._core import _run

from rbee.supervisor import memory_watch
from tests.simulation.draw import draw
from tests.simulation.scenario import Scenario, chance
from tests.simulation.sim_clock import SimClock
from tests.simulation.trace import Trace
from tests.simulation.world import World

# The kernel's counters of memory change here only when a process ends: they need not be read once
# a second, which would be a fifth of all that is computed.
COUNTERS_EVERY_S: Final = 30.0

# Nothing in the supervisor may take a clock's zero for "never".
BEGIN_S: Final = 1000.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one simulation."""

    seed: int
    violations: tuple[str, ...]
    digest: str  # of all that happened
    events: tuple[str, ...]  # the last
    requests: dict[str, int] = field(default_factory=dict)  # how many ended how
    workers: int = 0
    restarts: int = 0

    @property
    def is_good(self) -> bool:
        return not self.violations


def simulate(seed: int, duration_s: float = 3600.0) -> Outcome:
    """Play the history of ``seed``."""
    return play(draw(seed, duration_s))


def play(scenario: Scenario) -> Outcome:
    trace, clock = Trace(), SimClock(BEGIN_S)
    worlds: list[World] = []
    bugs: list[str] = []
    in_thread, counters_every_s = trio.to_thread.run_sync, memory_watch.COUNTERS_EVERY_S
    before = _run._ALLOW_DETERMINISTIC_SCHEDULING
    _run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # as pytest-trio does
    _run._r.seed(scenario.seed)
    memory_watch.COUNTERS_EVERY_S = COUNTERS_EVERY_S  # type: ignore[misc]
    trio.to_thread.run_sync = _threads(scenario)  # type: ignore[assignment]
    try:
        trio.run(_play, scenario, trace, clock, worlds, clock=clock)
    except KeyboardInterrupt:
        raise
    except BaseException as bug:  # noqa: BLE001  # whatever it is, it is what was looked for
        bugs = ["".join(traceback.format_exception(bug, limit=-6))]
    finally:
        trio.to_thread.run_sync = in_thread
        memory_watch.COUNTERS_EVERY_S = counters_every_s  # type: ignore[misc]
        _run._ALLOW_DETERMINISTIC_SCHEDULING = before  # type: ignore[misc]
    if not worlds:  # it could not even be built
        return Outcome(scenario.seed, tuple(bugs), trace.digest, tuple(trace.events))
    [world] = worlds
    return Outcome(
        seed=scenario.seed,
        violations=(*bugs, *trace.violations),
        digest=trace.digest,
        events=tuple(trace.events),
        requests=dict(world.requests.outcomes),
        workers=len(world.box.processes),
        restarts=world.slot_watch.restarts,
    )


def _threads(scenario: Scenario) -> Callable[..., Awaitable[Any]]:
    """What is done in a thread takes some time, and is done when it is over."""
    own = chance(scenario.seed, "threads")

    async def run_sync(act: Callable[..., Any], *args: object, **_options: object) -> Any:
        takes_s = getattr(getattr(act, "__self__", None), "takes_s", 0.0)
        await trio.sleep(own.choice((0.0, 0.0005, 0.01)) + takes_s)
        return act(*args)

    return run_sync


async def _play(scenario: Scenario, trace: Trace, clock: SimClock, worlds: list[World]) -> None:
    world = World(scenario, trace, clock)
    worlds.append(world)
    await world.run()
