"""How values are spread: a histogram, cheap enough for every token."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate


class Distribution:
    """Counts values by size. Not for more than one thread.

    Args:
      bounds: ascending; a value counts for the first that is not below it, or for none.
    """

    __slots__ = ("_bounds", "_counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        self._counts[bisect_left(self._bounds, value)] += times
        self.sum += value * times

    @property
    def count(self) -> int:
        return sum(self._counts)

    def cumulative(self) -> list[tuple[str, int]]:
        """How many values are at most each bound, as Prometheus has it; the last is "+Inf"."""
        bounds = [*map(repr, self._bounds), "+Inf"]
        return list(zip(bounds, accumulate(self._counts), strict=True))
