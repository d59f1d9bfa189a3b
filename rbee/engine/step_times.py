"""How long the last engine steps took. Written by the main thread, read by the link's."""

from array import array
from typing import Final

STEPS_KEPT: Final = 512
SLOWEST_LEFT_OUT: Final = 100  # one of so many


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
