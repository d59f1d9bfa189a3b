"""How `rbee chaos --minutes` is held, and shown."""

import shutil
from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from rbee.cli.endings import NOT_WELL, UsageError
from rbee.cli.terminal import printable_line, put

if TYPE_CHECKING:
    from rbee.chaos.hour.figures import Figures, HourReport

_MB: Final = 1_000_000


def hold(minutes: float, every_s: float, seed: int, kinds: Collection[str], *, json: bool) -> int:
    """Hold it; tell each minute how it stands, and at the end how it was.

    Args:
      kinds: only these faults; none: all that there are.
    """
    import trio

    from rbee.chaos.campaign import own_folder
    from rbee.chaos.hour.hour import hold_hour
    from rbee.chaos.hour.mix import MIX
    from rbee.chaos.hour.plan import Orders
    from rbee.chaos.preparations import prepare_process

    if unknown := sorted(set(kinds) - set(MIX)):
        raise UsageError(f"{unknown[0]!r} is none of the faults of --minutes: {', '.join(MIX)}")
    orders = Orders(minutes, every_s, seed, list(kinds or MIX))
    prepare_process()
    with own_folder() as folder:
        short = folder / "s"
        short.mkdir()
        tell = _put_json if json else _put_figures
        report = trio.run(hold_hour, orders, folder, short, tell)
    if json:
        _put_json(report)
    else:
        _put_report(report)
    if report.passed:
        shutil.rmtree(folder)
        return 0
    if not json:
        put(f"the server's log is in {folder}")
    return NOT_WELL


def _put_json(value: "Figures | HourReport") -> None:
    import msgspec

    put(msgspec.json.encode(value).decode())


def _put_figures(figures: "Figures") -> None:
    health = figures.health_answered + figures.health_missed
    parts = (
        f"minute {figures.minute:g}: {figures.faults} faults",
        f"{figures.failures} workers failed",
        f"requests: {figures.served} served, {figures.refused} refused, {figures.lost} lost",
        f"{figures.wrong} wrong, {figures.retried} asked again, {figures.share:.3%} right",
        f"health: {figures.health_answered} of {health}, slowest {figures.health_slowest_s:g} s",
        f"supervisor: {figures.memory_bytes / _MB:.0f} MB, {figures.descriptors} descriptors",
    )
    put("; ".join(parts))


def _put_report(report: "HourReport") -> None:
    for kind, count in sorted(report.faults.items()):
        missed = report.missed.get(kind, 0)
        put(
            f"{kind.ljust(38)}{count:>5}"
            + (f", {missed} found nothing to strike" if missed else "")
        )
    if report.first is not None and report.last is not None:
        _put_figures(report.first)
        _put_figures(report.last)
        more = report.last.memory_bytes - report.first.memory_bytes
        put(f"supervisor: {more / _MB:+.1f} MB since the beginning")
    drill = report.drill
    put(
        f"longest gap in which no new request was served: {drill.away_s} s;"
        f" restarts: {drill.restarts}; refusals: {drill.refused};"
        f" ended with code {drill.exit_code} in {drill.end_s} s; left behind: {drill.left}"
    )
    for problem in report.problems:
        put(printable_line(f"  {problem}"))
    put("passed" if report.passed else "FAILED")
