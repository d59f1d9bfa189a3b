"""One drill: a server, its clients, one fault, and what came of it."""

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import trio

from rbee.chaos.answers import End
from rbee.chaos.asks import AskNext, counting, learned
from rbee.chaos.clients import Clients
from rbee.chaos.leftovers import (
    find_files,
    find_strays,
    instances,
    recorded_instances,
    remove_cgroups,
    wait_processes_gone,
)
from rbee.chaos.preparations import mount_small_disk, unmount
from rbee.chaos.prober import Prober
from rbee.chaos.processes import descriptors, end_children
from rbee.chaos.scenario import Scenario
from rbee.chaos.scene import LOOK_EVERY_S, SERVING, Row, Scene
from rbee.chaos.server import START_TIMEOUT_S, DrillError, Server
from rbee.chaos.setting import Setting
from rbee.chaos.verdict import Findings, judge

_Seen = TypeVar("_Seen")

# Strays and descriptors of closed connections get so long to go.
SETTLE_S: Final = 5.0

# From the time by which it must serve again to the time at which the drill gives it up.
GIVE_UP_MORE_S: Final = 20.0


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A drill, as it is shown. Times in seconds; null: it was not come to."""

    scenario: str
    seed: int
    passed: bool
    problems: list[str]
    served: int = 0
    refused: dict[str, int] = {}  # by documented code
    lost: int = 0
    cut: int = 0  # broken off by the end of the server itself, where that was the fault
    not_taken: int = 0  # connections, while the server was ending
    away_s: float | None = None  # for so long no new request was served
    healed_s: float | None = None  # since the fault: each slot has its worker
    restarts: int | None = None
    exit_code: int | None = None
    end_s: float | None = None  # from the signal that ended it
    left: int = 0  # processes, sockets, groups and files
    errors: dict[str, int] = {}  # in the server's log, by event
    notes: list[str] = []
    took_s: float = 0.0


async def run_drill(scenario: Scenario, seed: int, folder: Path, short: Path) -> Report:
    """Hold one drill. Whatever comes of it, none of its processes is there afterwards.

    Args:
      folder: an empty one, for the server's configuration and its log.
      short: an empty one, for its directories; the path of a socket may not be long.
    """
    began_s = time.monotonic()
    chance = random.Random(f"{scenario.name} {seed}")  # noqa: S311  # no secret hangs on it
    found = Findings()
    server = Server(folder, short, scenario.setting)
    drill = _Drill(scenario, server, chance, found)
    _prepare(scenario.setting, folder, short)
    try:
        with trio.move_on_after(scenario.limit_s) as limit:
            await drill.run()
        if limit.cancelled_caught:
            found.broken = f"the drill took more than {scenario.limit_s:g} s"
        await _look_behind(drill)
        is_looked_at = scenario.successor is not None and not found.broken
        if found.exit_code == -signal.SIGKILL or is_looked_at:
            successor = Server(folder, short, scenario.setting)
            successor.know_key(server.key)
            await _succeed(drill, successor)
        found.audit = await server.verify_audit()
    except* DrillError as errors:
        found.broken = "; ".join(messages(errors))
    finally:
        end_children()
        remove_cgroups(drill.instances | recorded_instances(server.run_dir))
        _clear(scenario.setting, short)
    return _report(drill, seed, time.monotonic() - began_s)


class _Drill:
    """The course of one drill, from the server's start to its end."""

    def __init__(
        self, scenario: Scenario, server: Server, chance: random.Random, found: Findings
    ) -> None:
        self.scenario: Final = scenario
        self.server: Final = server
        self.found: Final = found
        self.instances: set[str] = set()
        self.notes: list[str] = []
        self._chance = chance

    async def run(self) -> None:
        if self.scenario.setting.has_key:
            await self.server.make_key()
        async with trio.open_nursery() as nursery:
            await nursery.start(self.server.run)
            await self.server.wait_listening()
            await self._wait_ready()
            self.instances = instances(await self._worker_pids())
            ask_next = await self._ask_next()
            clients = Clients(
                self.server.url, self.scenario.load, ask_next, self.server.open_client
            )
            self.found.tally = clients.tally
            scene = Scene(self.server, clients, self._chance)
            self.notes = scene.notes
            is_counting = self.scenario.setting.engine == "synthetic"
            probes = counting((2, 4), self._chance) if is_counting else ask_next
            await self._hold(scene, Prober(clients, probes))
            await self._end()

    async def _hold(self, scene: Scene, prober: Prober) -> None:
        """Load, fault, recovery, and the last answers."""
        descriptors_before = descriptors(self.server.pid)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scene.clients.run)
            await scene.clients.wait_begun(self.scenario.load.clients)
            nursery.start_soon(prober.run)
            await prober.wait_served(1)
            await self.scenario.fault(scene)
            if self.scenario.ends == "after":
                await self._wait_healed(scene)
                await prober.wait_served(2)
                self.found.away_s = prober.away_s
            else:
                await self.server.wait_ended(self.scenario.expected.end_s + GIVE_UP_MORE_S)
                self.found.end_s = time.monotonic() - scene.struck_s
            prober.stop()
            scene.clients.stop()
        if self.scenario.ends == "after":
            await self._look_around(descriptors_before)

    async def _wait_ready(self) -> None:
        """Wait until each slot of the models that count serves."""
        with trio.move_on_after(START_TIMEOUT_S):
            while True:
                if all(row["state"] in SERVING for row in await self._rows()):
                    return
                await trio.sleep(LOOK_EVERY_S)
        raise DrillError(f"the workers were not ready within {START_TIMEOUT_S:g} s")

    async def _look_around(self, descriptors_before: int) -> None:
        """What the server looks like when all is over, before it is stopped."""
        self.found.restarts = sum(row["restarts"] for row in await self._rows())
        pids = await self._worker_pids()
        self.found.strays = await _settled(lambda: find_strays(self.server.pid, pids))
        allowed = descriptors_before + self.scenario.expected.descriptors_more
        await _settled(lambda: max(0, descriptors(self.server.pid) - allowed))
        self.found.descriptors_more = descriptors(self.server.pid) - descriptors_before

    async def _wait_healed(self, scene: Scene) -> None:
        """Wait until every slot has its worker."""
        until_s = scene.struck_s + self.scenario.expected.healed_s + GIVE_UP_MORE_S
        while time.monotonic() < until_s:
            rows = await self._rows()
            if all(row["state"] in SERVING and row["pid"] not in scene.must_go for row in rows):
                self.found.healed_s = time.monotonic() - scene.struck_s
                return
            await trio.sleep(LOOK_EVERY_S)
        raise DrillError("not all slots had their workers again")

    async def _end(self) -> None:
        """See it end, by SIGTERM where the fault has not ended it."""
        if self.scenario.ends == "after":
            began_s = time.monotonic()
            self.server.signal(signal.SIGTERM)
            await self.server.wait_ended(self.scenario.expected.end_s + GIVE_UP_MORE_S)
            self.found.end_s = time.monotonic() - began_s
        self.found.exit_code = self.server.exit_code

    async def _ask_next(self) -> AskNext:
        if self.scenario.asks is not None:
            return await self.scenario.asks(self.server.url, self._chance)
        if self.scenario.setting.engine == "bee-tiny":
            return await learned(self.server.url, self._chance)
        return counting(self.scenario.load.tokens, self._chance)

    async def _rows(self) -> list[Row]:
        rows = await self.server.workers()
        return [row for row in rows if row["model"] in self.scenario.models]

    async def _worker_pids(self) -> set[int]:
        return {row["pid"] for row in await self.server.workers() if row["pid"] is not None}


async def _look_behind(drill: _Drill) -> None:
    """What is left when the server is gone."""
    found, server = drill.found, drill.server
    if found.exit_code is not None and found.exit_code >= 0:
        found.left, _ = await wait_processes_gone(was_killed=False)
        found.left += find_files(server.run_dir, drill.instances)
        return
    if not drill.scenario.expected.is_next_to_clean:
        found.left, took_s = await wait_processes_gone(was_killed=True)
        drill.notes.append(f"all processes gone after {took_s:.2f} s")


async def _succeed(drill: _Drill, successor: Server) -> None:
    """Start the next server in the place of the one that has ended; it must find its way."""
    async with trio.open_nursery() as nursery:
        await nursery.start(successor.run)
        await successor.wait_listening()
        left, _ = await wait_processes_gone(was_killed=True, spared={successor.pid})
        await successor.wait_event("serving")
        if drill.scenario.successor is not None:
            await drill.scenario.successor(successor)
        successor.signal(signal.SIGTERM)
        await successor.wait_ended(drill.scenario.expected.end_s)
    is_as_told = set(successor.errors) == drill.scenario.expected.successor_errors
    if successor.exit_code != 0 or not is_as_told:
        told = f"exit code {successor.exit_code}, errors {dict(successor.errors)}"
        raise DrillError(f"the next server in its place: {told}")
    drill.found.left += left + find_files(successor.run_dir, drill.instances)


def _prepare(setting: Setting, folder: Path, short: Path) -> None:
    for name in ("run", "state"):
        disk = short / f"{name}-disk"
        disk.mkdir()
        if setting.small_disk == name:
            mount_small_disk(disk)
    if setting.prepare is not None:
        setting.prepare(folder)


async def _settled(look: Callable[[], _Seen]) -> _Seen:
    """Look until there is nothing to be seen, or `SETTLE_S` are over."""
    until_s = time.monotonic() + SETTLE_S
    while (seen := look()) and time.monotonic() < until_s:
        await trio.sleep(LOOK_EVERY_S)
    return seen


def _clear(setting: Setting, short: Path) -> None:
    if setting.small_disk:
        unmount(short / f"{setting.small_disk}-disk")


def messages(errors: BaseExceptionGroup[BaseException]) -> list[str]:
    """What the errors say, however deep they lie."""
    found: list[str] = []
    for error in errors.exceptions:
        found += messages(error) if isinstance(error, BaseExceptionGroup) else [str(error)]
    return found


def _report(drill: _Drill, seed: int, took_s: float) -> Report:
    found = drill.found
    found.errors = drill.server.errors
    problems = judge(drill.scenario, found)
    lost = found.tally.ends[End.LOST]
    cut = lost if drill.scenario.expected.may_cut else 0
    return Report(
        scenario=drill.scenario.name,
        seed=seed,
        passed=not problems,
        problems=problems,
        served=found.tally.ends[End.SERVED],
        refused=dict(found.tally.refusals),
        lost=lost - cut,
        cut=cut,
        not_taken=found.tally.not_taken,
        away_s=_rounded(found.away_s),
        healed_s=_rounded(found.healed_s),
        restarts=found.restarts,
        exit_code=found.exit_code,
        end_s=_rounded(found.end_s),
        left=len(found.left) + len(found.strays),
        errors=dict(found.errors),
        notes=drill.notes,
        took_s=round(took_s, 1),
    )


def _rounded(value_s: float | None) -> float | None:
    return None if value_s is None else round(value_s, 2)
