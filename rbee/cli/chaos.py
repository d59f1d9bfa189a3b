"""``rbee chaos``: faults put to servers of its own, and what came of each."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from rbee.cli import chaos_hour
from rbee.cli.endings import NOT_WELL, UsageError
from rbee.cli.terminal import printable_line, put

if TYPE_CHECKING:
    from rbee.chaos.drill import Report
    from rbee.chaos.scenario import Absent, Scenario

# A drill mostly waits; more at a time than this disturb each other on any machine.
JOBS_PER_CORE: Final = 2
JOBS_MAX: Final = 4
NOTHING: Final = "-"

_COLUMNS: Final = (
    "SCENARIO", "SEED", "RESULT", "SERVED", "REFUSED", "LOST", "CUT", "AWAY", "HEALED", "LEFT",
    "TOOK",
)  # fmt: skip
_WIDTHS: Final = (38, 4, 6, 6, 7, 4, 3, 6, 6, 4, 6)


def chaos(  # noqa: PLR0913  # one for each option
    *,
    scenario: Annotated[list[str] | None, Parameter(name=["--scenario", "-s"])] = None,
    quick: bool = False,
    seeds: int = 1,
    rounds: int = 1,
    jobs: int | None = None,
    minutes: float | None = None,
    every_s: float = 5.0,
    seed: int = 1,
    list_: Annotated[bool, Parameter(name="--list")] = False,
    json: bool = False,
) -> int:
    """Put faults to servers of its own, under load, and judge what comes of each.

    It needs no server, and touches none but those that it starts: on loopback, with ports
    and directories of their own.

    Args:
      scenario: Only this one; may be given more than once.
      quick: Only those that the project's own tests hold.
      seeds: How often to hold each, at other moments each time.
      rounds: How often to go through all of them.
      jobs: How many to hold at a time; else two for each core, 4 at most.
      minutes: Instead, put one server to random faults for so long, and count what clients get.
      every_s: With --minutes, seconds from one fault to the next.
      seed: With --minutes, what all that is random in it is drawn from.
      list_: Show what there is, and hold nothing.
      json: Print JSON, a line for each drill, for programs.
    """
    from rbee.chaos.campaign import hold, plan, split_by_needs
    from rbee.chaos.catalogue import ABSENT

    if min(seeds, rounds, 1 if jobs is None else jobs) < 1:
        raise UsageError("--seeds, --rounds and --jobs must be 1 or more")
    if minutes is not None:
        if minutes <= 0 or every_s <= 0:
            raise UsageError("--minutes and --every-s must be above 0")
        if quick or list_ or max(seeds, rounds) > 1 or jobs is not None:
            raise UsageError("--minutes goes with --scenario, --every-s, --seed and --json alone")
        return chaos_hour.hold(minutes, every_s, seed, scenario or [], json=json)
    possible, skipped = split_by_needs(_chosen(scenario or [], is_quick=quick))
    if not scenario and not quick:
        skipped += ABSENT
    if list_:
        _put_list([(each.name, each.about) for each in possible], skipped, json=json)
        return 0
    drills = plan(possible, seeds, rounds)
    if not json:
        put(_line(_COLUMNS))
    teller = _Teller(json=json)
    jobs = jobs or min(JOBS_MAX, JOBS_PER_CORE * (os.cpu_count() or 1))
    has_passed = hold(drills, jobs, teller.tell)
    _put_summary(len(drills), teller.failed, skipped, json=json)
    return 0 if has_passed else NOT_WELL


def _chosen(names: list[str], *, is_quick: bool) -> list["Scenario"]:
    from rbee.chaos.catalogue import SCENARIOS

    for name in names:
        if name not in SCENARIOS:
            raise UsageError(f"there is no scenario {name!r}; `rbee chaos --list` shows all")
    if names:
        return [SCENARIOS[name] for name in names]
    return [each for each in SCENARIOS.values() if each.is_quick or not is_quick]


class _Teller:
    """Shows each drill as it is over, and remembers which failed."""

    def __init__(self, *, json: bool) -> None:
        self.failed: list[str] = []
        self._json = json

    def tell(self, report: "Report", folder: Path) -> None:
        if not report.passed:
            self.failed.append(f"{report.scenario} {report.seed}")
        if self._json:
            put(_to_json(report))
            return
        put(_line(_cells(report)))
        for problem in report.problems:
            put(printable_line(f"  {problem}"))
        if not report.passed:
            put(f"  the server's log is in {folder}")


def _cells(report: "Report") -> tuple[str, ...]:
    return (
        report.scenario,
        str(report.seed),
        "passed" if report.passed else "FAILED",
        str(report.served),
        str(sum(report.refused.values())),
        str(report.lost),
        str(report.cut),
        _seconds(report.away_s),
        _seconds(report.healed_s),
        str(report.left),
        _seconds(report.took_s),
    )


def _line(cells: Sequence[str]) -> str:
    first, *others = zip(cells, _WIDTHS, strict=True)
    columns = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
    return printable_line("  ".join(columns))


def _seconds(value_s: float | None) -> str:
    return NOTHING if value_s is None else f"{value_s:.1f} s"


def _put_list(
    possible: Sequence[tuple[str, str]], skipped: Sequence["Absent"], *, json: bool
) -> None:
    rows = [*possible, *((each.name, f"not held: {each.reason}") for each in skipped)]
    for name, about in rows:
        named = {"scenario": name, "about": about}
        put(_to_json(named) if json else f"{name.ljust(_WIDTHS[0])}  {about}")


def _put_summary(
    held: int, failed: Sequence[str], skipped: Sequence["Absent"], *, json: bool
) -> None:
    if json:
        reasons = {each.name: each.reason for each in skipped}
        summary = {"held": held, "failed": failed, "skipped": reasons}
        put(_to_json(summary))
        return
    for each in skipped:
        put(f"{each.name.ljust(_WIDTHS[0])}  skipped: {each.reason}")
    told = f"{held} drills, {len(failed)} failed, {len(skipped)} kinds skipped"
    put("\n".join([told, *(f"failed: {each}" for each in failed)]))


def _to_json(value: object) -> str:
    import msgspec  # the command line starts, and can say what is missing, without it

    return msgspec.json.encode(value).decode()
