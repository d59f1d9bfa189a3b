"""When a slot whose worker ended is filled again. Pure rules.

Rule 1: a worker that ended because it was asked to is no failure.
Rule 2: the wait doubles with each failure in a row; after ``failures_max`` restarts in a row
        the slot stays failed until an operator resets it.
Rule 3: what a restart cannot help (bad configuration, broken files, a model that does not
        fit) is not tried again.
"""

from dataclasses import dataclass
from typing import Final

from rbee.config import RestartConfig
from rbee.errors import ExitCode

HOPELESS: Final = {
    ExitCode.CONFIG: "bad configuration",
    ExitCode.DATA: "the model's files cannot be used",
    ExitCode.OUT_OF_MEMORY: "the model does not fit into memory",
}


@dataclass(frozen=True, slots=True)
class Ending:
    """What the rules need to know of a worker's end."""

    was_asked: bool  # an operator or the shutdown wanted it
    exit_code: int | None  # None: a signal ended it
    ready_for_s: float | None  # None: it never got ready


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to become of the slot."""

    failures: int  # in a row, this one included
    delay_s: float | None  # None: the slot stays empty
    reason: str = ""  # why it stays empty


def judge(ending: Ending, failures: int, limits: RestartConfig, chance: float) -> Verdict:
    """Decide whether and when the slot is filled again.

    Args:
      failures: in a row, before this ending.
      chance: in 0..1, from the caller's random source; spreads the delay.
    """
    if ending.was_asked:
        return Verdict(failures=0, delay_s=0.0)
    if ending.ready_for_s is None:
        if ending.exit_code in HOPELESS:
            return Verdict(failures + 1, None, HOPELESS[ExitCode(ending.exit_code)])
    elif ending.ready_for_s >= limits.forget_after_s:
        failures = 0
    failures += 1
    if failures > limits.failures_max:
        return Verdict(failures, None, f"{failures} failures in a row")
    return Verdict(failures, _delay_s(failures, limits, chance))


def _delay_s(failures: int, limits: RestartConfig, chance: float) -> float:
    base_s = min(limits.delay_s_max, limits.delay_s_min * 2 ** (failures - 1))
    return float(base_s * (1 + limits.jitter * (2 * chance - 1)))
