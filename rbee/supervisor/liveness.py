"""Whether a worker lives and advances. Pure rules over what it said and when.

Rule 1: that a process has *ended* is never judged here; its pidfd says so.
Rule 2: a budget grows with what is known of the work and of this box, between a floor and a
        cap that the operator sets. What is not known yet counts as slow: a healthy worker that
        is killed costs more than a hung one that is found later.
Rule 3: half of a budget is a sign, not a fault: the worker is slow.
"""

import enum
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from rbee.config import WorkerConfig

# Beats are due every ``beat_s``; so much later is still in time. Covers a busy scheduler.
BEAT_GRACE_S: Final = 0.25

# How much longer than what was measured something may take.
STEPS_LATE: Final = 20  # one engine step, against the slowest hundredth of the last ones
PROMPTS_LATE: Final = 4  # one step through prompts, against all of them at the measured speed
PROMPTS_ENDLESS: Final = 10  # all prompts, against the same
LOADS_LATE: Final = 4  # a sign of loading, against the longest wait for one so far

# Prompts are taken to be read at least so fast before one was measured; and never to be read
# faster than the other figure, as one whose beginning was cached says nothing about the next.
PROMPT_TOKENS_PER_S_UNKNOWN: Final = 2.0
PROMPT_TOKENS_PER_S_TRUSTED: Final = 500.0

# Prompts of which many steps were read are given up after so many step stalls, at the earliest.
PROMPT_STALLS_MIN: Final = 5


class LifePhase(enum.Enum):
    """Which limits hold."""

    STARTING = "starting"  # before Hello
    IMPORTING = "importing"  # holds the interpreter lock for seconds: beats may be late
    LOADING = "loading"  # before Ready
    SERVING = "serving"  # has nothing to do
    WORKING = "working"  # on requests
    LEAVING = "leaving"  # asked to end, and has nothing to finish
    GONE = "gone"


class Verdict(enum.StrEnum):
    """How it stands with a worker."""

    ALIVE = "alive"
    SLOW = "slow"  # half of some budget is used up
    WEDGED = "wedged"  # beats, but does not advance: the budget of its phase is used up
    LIVELOCK = "livelock"  # steps, but no request gets a token
    SILENT = "silent"  # no beat
    GONE = "gone"


FATAL: Final = frozenset({Verdict.WEDGED, Verdict.LIVELOCK, Verdict.SILENT})


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a model's workers were on this box. None: not known yet."""

    load_gap_s: float | None = None  # the longest wait for a sign of loading
    prompt_tokens_per_s: float | None = None  # of the slowest among the last prompts, and steps
    step_s: float | None = None  # of an engine step: 99 of 100 were quicker


@dataclass(frozen=True, slots=True)
class Signs:
    """What is known of a worker, all on one monotonic clock."""

    phase: LifePhase
    started_s: float
    beat_s: float  # the last beat, or Hello before the first
    heard_s: float  # anything at all
    # When loading or the engine last advanced; when it was given work, or asked to end.
    step_s: float
    token_s: float  # when a request last got a token or its end; or as above
    read_s: float  # when it last told that it had read something of a prompt; or as above
    prompt_tokens: int = 0  # of the requests that have no token yet
    is_reading: bool = False  # prompts, as far as it says
    pace: Pace = field(default_factory=Pace)


@dataclass(frozen=True, slots=True)
class Judgement:
    verdict: Verdict
    reason: str = ""  # "" for alive and gone
    look_again_s: float = math.inf

    @property
    def is_fatal(self) -> bool:
        return self.verdict in FATAL


@dataclass(frozen=True, slots=True)
class _Limit:
    """One thing that is to happen again and again."""

    since_s: float  # when it last did
    budget_s: float
    verdict: Verdict  # when the budget is used up
    fault: str  # in words
    slow_after_s: float = math.inf
    slow: str = ""  # in words

    @property
    def due_s(self) -> float:
        return self.since_s + self.budget_s

    @property
    def slow_s(self) -> float:
        return self.since_s + self.slow_after_s


def judge(signs: Signs, limits: WorkerConfig, now_s: float) -> Judgement:
    """How it stands with a worker, and when to look again."""
    if signs.phase is LifePhase.GONE:
        return Judgement(Verdict.GONE)
    found = list(_limits(signs, limits))
    first = min(found, key=lambda limit: limit.due_s)
    if now_s >= first.due_s:
        return Judgement(first.verdict, f"{first.fault} for {first.budget_s:g} s", now_s)
    look_again_s = min(time_s for limit in found for time_s in _times(limit) if time_s > now_s)
    slow = next((limit for limit in found if now_s >= limit.slow_s), None)
    if slow is None:
        return Judgement(Verdict.ALIVE, look_again_s=look_again_s)
    reason = f"{slow.slow} for {now_s - slow.since_s:.1f} s, {slow.budget_s:g} s are allowed"
    return Judgement(Verdict.SLOW, reason, look_again_s)


def _times(limit: _Limit) -> tuple[float, float]:
    return limit.due_s, limit.slow_s


def _limits(signs: Signs, limits: WorkerConfig) -> Iterator[_Limit]:
    """All limits that hold. Of two that are passed together the first one tells why."""
    match signs.phase:
        case LifePhase.STARTING:
            yield _Limit(
                signs.started_s, limits.hello_timeout_s, Verdict.WEDGED, "wedged: said no hello"
            )
        case LifePhase.IMPORTING:
            yield _stalled_load(signs, limits.load_stall_s)
            yield _slow_load(signs, limits)
        case LifePhase.LOADING:
            yield _silence(signs, limits)
            yield _stalled_load(signs, load_budget_s(signs.pace, limits))
            yield _slow_load(signs, limits)
        case LifePhase.SERVING:
            yield _silence(signs, limits)
        case LifePhase.WORKING:
            yield _silence(signs, limits)
            yield _no_step(signs, limits)
            if signs.is_reading:
                yield _no_reading(signs, limits)
            yield _no_token(signs, limits)
        case LifePhase.LEAVING:
            yield _silence(signs, limits)
            fault = "wedged: did not end when asked"
            yield _Limit(signs.step_s, limits.kill_after_s, Verdict.WEDGED, fault)
        case LifePhase.GONE:
            raise AssertionError("what is gone has no limits")


def _silence(signs: Signs, limits: WorkerConfig) -> _Limit:
    """Beats may find no room in a link that is full of tokens: those are signs of life too."""
    one_s = limits.beat_s + BEAT_GRACE_S
    all_s = limits.beat_s * limits.beats_missed_max + BEAT_GRACE_S
    since_s = max(signs.beat_s, signs.heard_s + one_s - all_s)
    slow_s = one_s if limits.beats_missed_max > 1 else math.inf
    return _Limit(since_s, all_s, Verdict.SILENT, "hung: no beat", slow_s, "no beat")


def _stalled_load(signs: Signs, budget_s: float) -> _Limit:
    what = "no progress in loading"
    return _Limit(signs.step_s, budget_s, Verdict.WEDGED, f"wedged: {what}", budget_s / 2, what)


def _slow_load(signs: Signs, limits: WorkerConfig) -> _Limit:
    return _Limit(signs.started_s, limits.load_timeout_s, Verdict.WEDGED, "wedged: not loaded")


def _no_step(signs: Signs, limits: WorkerConfig) -> _Limit:
    budget_s = max(step_budget_s(signs, limits), 2 * limits.beat_s)
    return _Limit(
        signs.step_s, budget_s, Verdict.WEDGED, "wedged: no engine step", budget_s / 2,
        "no engine step",
    )  # fmt: skip


def _no_reading(signs: Signs, limits: WorkerConfig) -> _Limit:
    """Each step reads something of the prompts that wait, or brings others a token."""
    budget_s = max(step_budget_s(signs, limits), 2 * limits.beat_s)
    since_s = max(signs.read_s, signs.token_s)
    return _Limit(
        since_s, budget_s, Verdict.LIVELOCK, "livelock: steps, but no prompt is read",
        budget_s / 2, "nothing of a prompt read",
    )  # fmt: skip


def _no_token(signs: Signs, limits: WorkerConfig) -> _Limit:
    budget_s = max(token_budget_s(signs, limits), 2 * limits.beat_s)
    # Who has just read the last of a prompt, though that has ended by now, begins anew.
    since_s = signs.token_s if signs.is_reading else max(signs.token_s, signs.read_s)
    return _Limit(
        since_s, budget_s, Verdict.LIVELOCK, "livelock: steps, but no token", budget_s / 2,
        "no token",
    )  # fmt: skip


def load_budget_s(pace: Pace, limits: WorkerConfig) -> float:
    """How long loading may show no sign of progress.

    A sign comes with each part of the files: a slow disk shows by the time between two.
    """
    measured_s = LOADS_LATE * (pace.load_gap_s or 0.0)
    return _between(limits.load_stall_s, measured_s, limits.load_timeout_s)


def step_budget_s(signs: Signs, limits: WorkerConfig) -> float:
    """How long one engine step may take."""
    pace = signs.pace
    measured_s = STEPS_LATE * (pace.step_s or 0.0)
    is_known = pace.step_s is not None
    if signs.is_reading:
        measured_s = max(measured_s, PROMPTS_LATE * _prompts_s(signs))
        is_known = is_known and pace.prompt_tokens_per_s is not None
    floor_s = limits.step_stall_s_min if is_known else limits.step_stall_s
    return _between(floor_s, measured_s, limits.step_stall_s_max)


def token_budget_s(signs: Signs, limits: WorkerConfig) -> float:
    """How long steps may bring nobody a token."""
    if not signs.is_reading:
        return step_budget_s(signs, limits)  # each brings somebody one
    floor_s = PROMPT_STALLS_MIN * limits.step_stall_s
    return _between(floor_s, PROMPTS_ENDLESS * _prompts_s(signs), limits.prompt_timeout_s)


def _prompts_s(signs: Signs) -> float:
    """How long all prompts that wait should take."""
    measured = signs.pace.prompt_tokens_per_s
    speed = PROMPT_TOKENS_PER_S_UNKNOWN if measured is None else measured
    return signs.prompt_tokens / min(speed, PROMPT_TOKENS_PER_S_TRUSTED)


def _between(floor_s: float, wanted_s: float, cap_s: float) -> float:
    return max(floor_s, min(wanted_s, cap_s))
