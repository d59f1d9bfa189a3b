"""What the hour shows, and what must hold of it beyond what every drill must. Pure."""

from typing import Final

import msgspec

from rbee.chaos.answers import End
from rbee.chaos.clients import Tally
from rbee.chaos.drill import Report

# Of the requests, asked again where the documents say so, as many must be answered.
SHARE_MIN: Final = 0.999

# A fault may come too late for what it was meant for, while others strike; few may.
MISSED_SHARE_MAX: Final = 0.25


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """How it stands at some moment. Times in seconds."""

    minute: float
    faults: int
    served: int
    refused: int  # with a documented error, at the last try
    retried: int
    lost: int  # broken off, or never answered
    wrong: int  # another answer than the right one
    health_answered: int
    health_missed: int
    health_slowest_s: float
    failures: int  # of workers
    memory_bytes: int  # of the supervisor
    descriptors: int  # of the supervisor

    @property
    def share(self) -> float:
        """Of the requests, those that were answered rightly; 1.0 before the first is over."""
        asked = self.served + self.refused + self.lost + self.wrong
        return self.served / asked if asked else 1.0


class HourReport(msgspec.Struct, frozen=True, kw_only=True):
    """All of it, as it is shown at the end."""

    passed: bool
    problems: list[str]
    share: float | None
    faults: dict[str, int]  # by kind
    missed: dict[str, int]  # of these: by kind, those that found nothing to strike
    first: Figures | None  # null: it did not begin
    last: Figures | None
    drill: Report


def counts(tally: Tally) -> dict[str, int]:
    """The part of `Figures` that concerns requests."""
    return {
        "served": tally.ends[End.SERVED],
        "refused": tally.ends[End.REFUSED],
        "retried": tally.retried,
        "lost": tally.broken_off,
        "wrong": tally.ends[End.LOST] - tally.broken_off,
    }


def judge(last: Figures, missed: int, missed_looks: list[str]) -> list[str]:
    """What is not as it must be, beside what the drill's own judge has found.

    Args:
      missed: faults that found nothing to strike.
      missed_looks: what came instead of answers about the server's health.
    """
    problems = []
    if last.share < SHARE_MIN:
        problems.append(f"{last.share:.4%} of the requests were answered, not {SHARE_MIN:.1%}")
    if last.health_missed:
        problems.append(
            f"{last.health_missed} looks at /health/live without an answer: {missed_looks[0]}"
        )
    if not last.health_answered:
        problems.append("not one look at /health/live: the hour shows nothing")
    if missed > MISSED_SHARE_MAX * last.faults:
        problems.append(f"{missed} of {last.faults} faults found nothing to strike")
    return problems
