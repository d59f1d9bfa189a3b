"""The hour itself: a drill whose fault is a row of faults."""

import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import trio

from rbee.chaos.answers import Asked
from rbee.chaos.asks import AskNext, counting, learned
from rbee.chaos.clients import Load
from rbee.chaos.drill import messages, run_drill
from rbee.chaos.hour.figures import Figures, HourReport, counts, judge
from rbee.chaos.hour.mix import MIX
from rbee.chaos.hour.plan import Orders, Strike, plan
from rbee.chaos.hour.pulse import Pulse
from rbee.chaos.processes import descriptors, memory_bytes
from rbee.chaos.scenario import Expected, Scenario
from rbee.chaos.scene import Missed, Scene
from rbee.chaos.server import DrillError
from rbee.chaos.setting import Setting

# One worker more than may be lost to a request that hangs two of them.
SETTING: Final = Setting(
    slots=3,
    synthetic='fault = "as_prompted"\nload_s = 0.5',
    # Nobody resets a slot here. What is held to the promise is service, not the breaker, which
    # would rightly open: a slot is struck about each 15 s, and that in a row of hundreds.
    restart="failures_max = 1000\ndelay_s_max = 4\nforget_after_s = 5",
    second='ref = "bee-tiny"\nthreads = 1',
)
TOKENS: Final = (20, 120)
LOAD: Final = Load(clients=6, tokens=TOKENS, timeout_s=120, tries=5)
ASKS_SECOND: Final = 0.3  # of the requests

# Faults overlap, so no figure for a single one holds. The log may tell of failed workers and of
# requests that made them fail; and, of the seconds without descriptors, of audit entries and
# cgroups that had to wait.
EXPECTED: Final = Expected(
    errors_too=frozenset({"worker_failed", "request_quarantined", "audit_failing", "cgroups_left"}),
    refusals=frozenset({"request_quarantined", "worker_failed", "queue_full"}),
    away_s=30,
    healed_s=30,
    restarts=(0, 1_000_000),
)

# How long one fault may take; its request may be set apart, and wait for workers that restart.
FAULT_S: Final = 120.0
MINUTE_S: Final = 60.0
END_MORE_S: Final = 180.0

Tell = Callable[[Figures], None]
"""Hears how it stands, each minute."""


async def hold_hour(orders: Orders, folder: Path, short: Path, tell: Tell) -> HourReport:
    """Hold it. Whatever comes of it, none of its processes is there afterwards.

    Args:
      folder: as of `run_drill`, which has ``short`` too.
    """
    hour = _Hour(orders, tell)
    scenario = Scenario(
        name="hour", fault=hour.put, setting=SETTING, load=LOAD, asks=ask_both,
        models=("first", "second"), expected=EXPECTED, limit_s=orders.duration_s + END_MORE_S,
    )  # fmt: skip
    drill = await run_drill(scenario, orders.seed, folder, short)
    problems = [*drill.problems, *hour.problems]
    if hour.last is not None:
        problems += judge(hour.last, hour.missed.total(), hour.missed_looks)
    return HourReport(
        passed=not problems,
        problems=problems,
        share=None if hour.last is None else hour.last.share,
        faults=dict(hour.struck),
        missed=dict(hour.missed),
        first=hour.first,
        last=hour.last,
        drill=drill,
    )


async def ask_both(url: str, chance: random.Random) -> AskNext:
    """Requests to both models, each with a seed of its own.

    It has no effect on the answers. Without it many clients would ask for the very same, and
    what is held against one request would be held against all of them.
    """
    count, recite = counting(TOKENS, chance), await learned(url, chance, "second")

    def ask_next() -> Asked:
        asked = (recite if chance.random() < ASKS_SECOND else count)()
        return replace(asked, body={**asked.body, "seed": chance.getrandbits(32)})

    return ask_next


class _Hour:
    """One hour, as its drill's fault."""

    def __init__(self, orders: Orders, tell: Tell) -> None:
        self.struck: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()
        self.problems: list[str] = []
        self.first: Figures | None = None
        self.last: Figures | None = None
        self.missed_looks: list[str] = []
        self._orders = orders
        self._tell = tell
        # Two of a kind would undo each other's doings, such as a limit that was lowered.
        self._locks: defaultdict[str, trio.Lock] = defaultdict(trio.Lock)

    async def put(self, scene: Scene) -> None:
        """One random fault after the other, for as long as is ordered."""
        pulse, is_over = Pulse(scene.server.url, scene.server.open_client), trio.Event()
        self.missed_looks = pulse.told
        self._began_s = trio.current_time()
        self.first = self._look(scene, pulse)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pulse.run, is_over)
            nursery.start_soon(self._tell_each_minute, scene, pulse, is_over)
            await self._strike_all(scene)
            is_over.set()
        self.last = self._look(scene, pulse)
        scene.strike()

    async def _strike_all(self, scene: Scene) -> None:
        """Returns when the last fault has done what it does.

        Raises:
          DrillError: the server has ended.
        """
        async with trio.open_nursery() as nursery:
            for strike in plan(self._orders):
                await trio.sleep_until(self._began_s + strike.at_s)
                scene.server.check_running()
                nursery.start_soon(self._strike, scene, strike)
            await trio.sleep_until(self._began_s + self._orders.duration_s)

    async def _strike(self, scene: Scene, strike: Strike) -> None:
        chance = random.Random(strike.seed)  # noqa: S311  # no secret hangs on it
        own = Scene(scene.server, scene.clients, chance, FAULT_S)
        async with self._locks[strike.kind]:
            self.struck[strike.kind] += 1
            try:
                with trio.fail_after(FAULT_S):
                    await MIX[strike.kind](own)
            except* (Missed, OSError, trio.BrokenResourceError):
                self.missed[strike.kind] += 1  # the worker, or the connection, was gone before
            except* (DrillError, trio.TooSlowError) as errors:
                told = "; ".join(messages(errors)) or f"took more than {FAULT_S:g} s"
                self.problems.append(f"{strike.kind}, at {strike.at_s:.1f} s: {told}")
        scene.must_go.clear()
        scene.must_go.update(own.must_go)  # of the last one alone: pids come again

    async def _tell_each_minute(self, scene: Scene, pulse: Pulse, is_over: trio.Event) -> None:
        while not is_over.is_set():
            with trio.move_on_after(MINUTE_S):
                await is_over.wait()
                return
            self._tell(self._look(scene, pulse))

    def _look(self, scene: Scene, pulse: Pulse) -> Figures:
        return Figures(
            minute=round((trio.current_time() - self._began_s) / MINUTE_S, 1),
            faults=self.struck.total(),
            health_answered=pulse.answered,
            health_missed=pulse.missed,
            health_slowest_s=round(pulse.slowest_s, 2),
            failures=scene.server.count("worker_failed"),
            memory_bytes=memory_bytes(scene.server.pid),
            descriptors=descriptors(scene.server.pid),
            **counts(scene.clients.tally),
        )
