"""A campaign: many drills, some at a time, each in a process of its own."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import trio

from rbee.chaos.drill import Report
from rbee.chaos.processes import adopt_orphans, end_children, heed_sigterm
from rbee.chaos.scenario import Absent, Need, Scenario
from rbee.chaos.worker_faults import FREEZER

# A drill ends by itself within its scenario's limit and what its end takes.
END_MORE_S: Final = 60.0

# A drill that is broken off ends its server first, and takes away what that one has left.
CLEAR_S: Final = 20.0

_PIDS_CGROUP: Final = Path("/sys/fs/cgroup/pids")
_LAST_WORDS: Final = 500


@dataclass(frozen=True, slots=True)
class Drill:
    """One to be held."""

    scenario: Scenario
    seed: int


def plan(scenarios: Iterable[Scenario], seeds: int, rounds: int) -> list[Drill]:
    """Each scenario with each seed, once in each round; no seed comes twice.

    Those that take the whole machine stand last: they are held alone.
    """
    drills = [
        Drill(scenario, number * seeds + seed)
        for number in range(rounds)
        for scenario in scenarios
        for seed in range(1, seeds + 1)
    ]
    return sorted(drills, key=lambda drill: drill.scenario.is_alone)


def split_by_needs(scenarios: Iterable[Scenario]) -> tuple[list[Scenario], list[Absent]]:
    """Those that can be put to a server on this machine, and the others with the reason."""
    possible, others = [], []
    lacking = _lacking()
    for scenario in scenarios:
        told = [lacking[need] for need in scenario.needs if need in lacking]
        if told:
            others.append(Absent(scenario.name, f"not on this machine: needs {told[0]}"))
        else:
            possible.append(scenario)
    return possible, others


def _lacking() -> dict[Need, str]:
    """What drills may need and this machine has not, in words."""
    needs: dict[Need, tuple[bool, str]] = {
        "root": (os.geteuid() == 0, "root"),
        "cgroup v1": ((_PIDS_CGROUP / "cgroup.procs").exists(), "cgroup version 1"),
        "freezer": ((FREEZER / "cgroup.procs").exists(), "the freezer of cgroup version 1"),
        "openssl": (shutil.which("openssl") is not None, "the openssl command"),
    }
    return {need: words for need, (is_there, words) in needs.items() if not is_there}


def hold(drills: Sequence[Drill], jobs: int, tell: Callable[[Report, Path], None]) -> bool:
    """Hold them, up to ``jobs`` at a time.

    Args:
      tell: hears of each as it is over, and where its server's log is, if it failed.
    Returns:
      Whether all passed.
    """
    adopt_orphans()
    heed_sigterm()
    with own_folder() as folder:
        has_passed = trio.run(_hold_all, drills, jobs, folder, tell)
    if has_passed:
        folder.rmdir()
    return has_passed


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder for what is held, which stays. No process does; broken off, nothing does."""
    folder = Path(tempfile.mkdtemp(prefix="rbee-chaos-"))
    try:
        yield folder
    except BaseException as error:
        end_children()
        shutil.rmtree(folder, ignore_errors=True)  # nobody will look at the logs
        if isinstance(error, BaseExceptionGroup) and error.subgroup(KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise
    finally:
        end_children()


async def _hold_all(
    drills: Sequence[Drill], jobs: int, folder: Path, tell: Callable[[Report, Path], None]
) -> bool:
    outcomes: list[bool] = []
    places = trio.CapacityLimiter(jobs)

    async def hold_one(number: int, drill: Drill) -> None:
        async with places:
            own = folder / f"{drill.scenario.name}-{drill.seed}"
            short = folder / f"{number}"  # the path of a socket may not be long
            own.mkdir()
            short.mkdir()
            report = await _in_process(drill, own, short)
            shutil.rmtree(short, ignore_errors=True)  # a drill that broke may have left a mount
            if report.passed:
                shutil.rmtree(own)
            tell(report, own)
            outcomes.append(report.passed)

    numbered = list(enumerate(drills))
    async with trio.open_nursery() as nursery:
        for number, drill in numbered:
            if not drill.scenario.is_alone:
                nursery.start_soon(hold_one, number, drill)
    for number, drill in numbered:
        if drill.scenario.is_alone:
            await hold_one(number, drill)
    return all(outcomes)


async def _in_process(drill: Drill, folder: Path, short: Path) -> Report:
    """Hold one; a drill that breaks is one that failed."""
    command = [sys.executable, "-m", "rbee.chaos", drill.scenario.name, str(drill.seed)]
    with trio.move_on_after(drill.scenario.limit_s + END_MORE_S):
        done = await trio.run_process(
            [*command, str(folder), str(short)],
            capture_stdout=True,
            capture_stderr=True,
            stdin=subprocess.DEVNULL,
            check=False,
            start_new_session=True,
            deliver_cancel=_terminate,
        )
        if done.returncode == 0:
            return msgspec.json.decode(done.stdout, type=Report)
        told = done.stderr.decode("utf-8", "replace")[-_LAST_WORDS:]
        return _broken(drill, f"the drill broke with code {done.returncode}: {told}")
    return _broken(drill, "the drill did not come to its end")


async def _terminate(process: trio.Process) -> None:
    """Have it end its server and clear away; if it does not, `hold` ends what is left."""
    process.terminate()
    await trio.sleep(CLEAR_S)
    process.kill()


def _broken(drill: Drill, problem: str) -> Report:
    return Report(
        scenario=drill.scenario.name, seed=drill.seed, passed=False, problems=[problem],
    )  # fmt: skip
