"""How long the last engine steps took, and how fast they read. Written by the main thread, read
by the link's.
"""

from array import array
from typing import Final

STEPS_KEPT: Final = 512
SLOWEST_LEFT_OUT: Final = 100  # one of so many
READING_STEPS_KEPT: Final = 16


class StepTimes:
    """The last `STEPS_KEPT` steps. A reader may see one of them torn between old and new."""

    def __init__(self) -> None:
        self._durations_s = array("d", bytes(8 * STEPS_KEPT))
        self._count = 0

    def note(self, duration_s: float) -> None:
        self._durations_s[self._count % STEPS_KEPT] = duration_s
        self._count += 1

    def slow_s(self) -> float:
        """So long took the slowest step but one in `SLOWEST_LEFT_OUT`. 0: there was none yet."""
        count = min(self._count, STEPS_KEPT)
        if count == 0:
            return 0.0
        return sorted(self._durations_s[:count])[-1 - count // SLOWEST_LEFT_OUT]


class ReadingPace:
    """How fast the last steps read that read something. What they did beside it counts as time.

    So it is never told too high, and for a few tokens rather too low.
    """

    def __init__(self) -> None:
        self._steps: tuple[tuple[int, float], ...] = ()  # replaced whole, so read without a lock

    def note(self, tokens: int, duration_s: float) -> None:
        self._steps = (*self._steps[1 - READING_STEPS_KEPT :], (tokens, duration_s))

    def tokens_per_s(self) -> float:
        """0: nothing was read yet."""
        steps = self._steps
        tokens = sum(count for count, _ in steps)
        return tokens / max(1e-6, sum(duration_s for _, duration_s in steps)) if steps else 0.0
