"""When a slot whose worker ended is filled again. Pure rules.

Rule 1: a worker that ended because it was asked to is no failure; one that a request took along
        is none of its slot, as soon as it is known that it was so.
Rule 2: the wait doubles with each failure in a row; after ``failures_max`` restarts in a row
        the slot stays failed until an operator resets it.
Rule 3: what a restart cannot help (bad configuration, broken files, a model that does not
        fit) is not tried again. Memory that ran out in service is tried once: the next worker
        begins with all of it.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rbee.config import RestartConfig
from rbee.errors import ExitCode


class Cause(enum.StrEnum):
    """What kind of failure the end of a worker was."""

    CRASH = "crash"
    HANG = "hang"
    OUT_OF_MEMORY = "out_of_memory"
    LOAD_FAILURE = "load_failure"  # it never got ready
    BAD_CONFIG = "bad_config"


@dataclass(frozen=True, slots=True)
class Ending:
    """What the rules need to know of a worker's end."""

    was_asked: bool  # an operator or the shutdown wanted it
    exit_code: int | None  # None: a signal ended it
    ready_for_s: float | None  # None: it never got ready
    was_hung: bool = False  # killed for how it lived
    was_out_of_memory: bool = False  # the kernel, or a limit of ours, said so
    # So many more failures in a row, this one and earlier ones, are known to be a request's doing.
    pardons: int = 0


class Tries(enum.Enum):
    """Whether another worker may do better."""

    AGAIN = "again"  # as often as is configured
    ONCE = "once"  # twice in a row is enough
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Failure:
    """A kind of failure, and what is to be done about it."""

    cause: Cause
    tries: Tries
    reason: str  # why it is not tried again; "": for the number of failures alone
    remedy: str  # what an operator can do before `rbee workers reset`


_FREE_MEMORY: Final = (
    "lower context_length, batch_size or cache_tokens, take a smaller or more quantised model, or"
    " free memory"
)
_CRASH: Final = Failure(Cause.CRASH, Tries.AGAIN, "", "`rbee crashes list` shows where it crashed")
_HANG: Final = Failure(Cause.HANG, Tries.AGAIN, "", "`rbee crashes list` shows where it hung")
_LOAD: Final = Failure(
    Cause.LOAD_FAILURE, Tries.AGAIN, "", "`rbee crashes list` shows why, and what it said"
)
_MEMORY: Final = Failure(
    Cause.OUT_OF_MEMORY, Tries.ONCE, "memory ran out again after a restart", _FREE_MEMORY
)

# Exit codes of workers that never got ready, and that another try would end with too.
HOPELESS: Final[Mapping[int, Failure]] = {
    ExitCode.CONFIG: Failure(
        Cause.BAD_CONFIG, Tries.NEVER, "bad configuration",
        "mend the configuration (`rbee config check`) and start rbee again",
    ),
    ExitCode.DATA: Failure(
        Cause.LOAD_FAILURE, Tries.NEVER, "the model's files cannot be used",
        "put whole files of a kind that the engine reads in their place",
    ),
    ExitCode.OUT_OF_MEMORY: Failure(
        Cause.OUT_OF_MEMORY, Tries.NEVER, "the model does not fit into memory", _FREE_MEMORY
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to become of the slot."""

    failures: int  # in a row, this one included
    delay_s: float | None  # None: the slot stays empty
    reason: str = ""  # why it stays empty
    failure: Failure | None = None  # None: it was none


def failure_of(ending: Ending) -> Failure:
    """What kind of failure this end was, given that it was one."""
    if ending.ready_for_s is None:
        if ending.was_out_of_memory:
            return HOPELESS[ExitCode.OUT_OF_MEMORY]
        return HOPELESS.get(-1 if ending.exit_code is None else ending.exit_code, _LOAD)
    if ending.was_out_of_memory or ending.exit_code == ExitCode.OUT_OF_MEMORY:
        return _MEMORY
    return _HANG if ending.was_hung else _CRASH


@dataclass(frozen=True, slots=True)
class Record:
    """The failures of a slot in a row, before the one to be judged."""

    failures: int = 0
    last: Failure | None = None


def judge(ending: Ending, record: Record, limits: RestartConfig, chance: float) -> Verdict:
    """Decide whether and when the slot is filled again.

    Args:
      chance: in 0..1, from the caller's random source; spreads the delay.
    """
    if ending.was_asked:
        return Verdict(failures=0, delay_s=0.0)
    failure = failure_of(ending)
    if ending.ready_for_s is not None and ending.ready_for_s >= limits.forget_after_s:
        record = Record()
    failures = max(0, record.failures + 1 - ending.pardons)
    if failures == 0:
        return Verdict(0, _delay_s(1, limits, chance), failure=failure)
    # What was pardoned is none, be it this one or the one before it.
    last = None if ending.pardons else record.last
    is_second = failures > 1 and last is not None and last.cause is failure.cause
    if failure.tries is Tries.NEVER or (failure.tries is Tries.ONCE and is_second):
        return Verdict(failures, None, failure.reason, failure)
    if failures > limits.failures_max:
        return Verdict(failures, None, f"{failures} failures in a row", failure)
    return Verdict(failures, _delay_s(failures, limits, chance), failure=failure)


def judge_again(record: Record, pardons: int, limits: RestartConfig, chance: float) -> Verdict:
    """Decide once more on a slot that was to stay empty, as some of its failures are pardoned."""
    assert record.last is not None, "nothing has failed"
    failures = max(0, record.failures - pardons)
    if record.last.tries is Tries.NEVER:
        return Verdict(failures, None, record.last.reason, record.last)
    if failures > limits.failures_max:
        return Verdict(failures, None, f"{failures} failures in a row", record.last)
    return Verdict(failures, _delay_s(max(1, failures), limits, chance), failure=record.last)


def _delay_s(failures: int, limits: RestartConfig, chance: float) -> float:
    # Not the power of a number that an operator may have set to a thousand.
    base_s = min(limits.delay_s_max, limits.delay_s_min * 2.0 ** min(failures - 1, 32))
    return round(base_s * (1 + limits.jitter * (2 * chance - 1)), 3)  # as the log tells it
