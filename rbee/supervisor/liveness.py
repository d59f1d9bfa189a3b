"""Whether a worker lives and advances. Pure rules over what it said and when.

Rule: that a process has *ended* is never judged here; its pidfd says so.
"""

import enum
from dataclasses import dataclass
from typing import Final

from rbee.config import WorkerConfig

# Beats are due every ``beat_s``; so much later is still in time. Covers a busy scheduler.
BEAT_GRACE_S: Final = 0.25


class LifePhase(enum.Enum):
    """Which limits hold."""

    STARTING = "starting"  # before Hello
    LOADING = "loading"  # before Ready
    SERVING = "serving"  # has nothing to do
    WORKING = "working"  # on requests
    LEAVING = "leaving"  # asked to end, and has nothing to finish


@dataclass(frozen=True, slots=True)
class Signs:
    """What is known of a worker, all on one monotonic clock."""

    phase: LifePhase
    started_s: float
    beat_s: float  # the last beat, or Hello before the first
    # When loading or the engine last advanced; when it was given work, or asked to end.
    progress_s: float


def judge(signs: Signs, limits: WorkerConfig, now_s: float) -> tuple[str, float]:
    """Find the fault of a worker, if it has one.

    Returns:
      The fault, "" if there is none, and the time by which to look again.
    """
    due = list(_due(signs, limits))
    first_s, fault = min(due)
    return (fault if now_s >= first_s else ""), first_s


def _due(signs: Signs, limits: WorkerConfig) -> list[tuple[float, str]]:
    """Each limit that holds: when it is passed, and what that means."""
    if signs.phase is LifePhase.STARTING:
        hello_s = signs.started_s + limits.hello_timeout_s
        return [(hello_s, f"said no hello within {limits.hello_timeout_s:g} s")]
    silent_s = limits.beat_s * limits.beats_missed_max + BEAT_GRACE_S
    due = [(signs.beat_s + silent_s, f"hung: no beat for {silent_s:g} s")]
    if signs.phase is LifePhase.LOADING:
        stall = f"loading made no progress for {limits.load_stall_s:g} s"
        due.append((signs.progress_s + limits.load_stall_s, stall))
        slow = f"not loaded within {limits.load_timeout_s:g} s"
        due.append((signs.started_s + limits.load_timeout_s, slow))
    if signs.phase is LifePhase.WORKING:
        # Prefill tells of its steps by beats alone: two must have had time to come.
        still_s = max(limits.step_stall_s, 2 * limits.beat_s)
        due.append((signs.progress_s + still_s, f"wedged: no progress for {still_s:g} s"))
    if signs.phase is LifePhase.LEAVING:
        late = f"did not end within {limits.kill_after_s:g} s"
        due.append((signs.progress_s + limits.kill_after_s, late))
    return due
