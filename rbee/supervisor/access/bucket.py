"""A bucket that is filled again at a steady pace: so much a minute, and no more at once. Pure."""

import math


class Bucket:
    """What is left of an allowance.

    Args:
      per_minute: what it holds, and what flows in within a minute.
      now_s: it is full then.
    """

    def __init__(self, per_minute: int, now_s: float) -> None:
        self.per_minute = per_minute
        self._level = float(per_minute)
        self._at_s = now_s

    def left(self, now_s: float) -> int:
        """Whole units that are left."""
        return max(0, math.floor(self._filled(now_s)))

    def take(self, amount: int, now_s: float) -> None:
        """Take out what was used. It may go below empty: what was used is owed.

        Less than nothing puts back what was taken out; more than it holds flows over.
        """
        self._level = self._filled(now_s) - amount
        self._at_s = now_s

    def wait_s(self, now_s: float) -> float:
        """Until there is a whole unit; 0: there is."""
        return max(0.0, (1 - self._filled(now_s)) * 60 / self.per_minute)

    def is_full(self, now_s: float) -> bool:
        """Whether nothing is missing: it is as a new one then."""
        return self._filled(now_s) >= self.per_minute

    def reset_s(self, now_s: float) -> float:
        """Until it is full."""
        return max(0.0, (self.per_minute - self._filled(now_s)) * 60 / self.per_minute)

    def _filled(self, now_s: float) -> float:
        gained = max(0.0, now_s - self._at_s) * self.per_minute / 60
        return min(float(self.per_minute), self._level + gained)
