"""Until when each connection may go on as it does. Pure: the time is an argument.

Rule: connections change their deadline several times per request, and hardly any passes. So a
      change costs two operations on sets, and a deadline is seen up to `TICK_S` late.
"""

import heapq
import math
from typing import Final, Generic, Protocol, TypeVar

TICK_S: Final = 0.1


class Timed(Protocol):
    """What can have a deadline. It is hashed by identity."""

    tick: int  # for `Timers` alone; -1: no deadline


T = TypeVar("T", bound=Timed)


class Timers(Generic[T]):
    """The deadlines of all connections."""

    def __init__(self) -> None:
        # None: all that had this deadline have another one by now. A set that was emptied would
        # keep its room, and there are as many of them as ticks until the latest deadline.
        self._buckets: dict[int, set[T] | None] = {}
        self._ticks: list[int] = []  # a heap of the buckets' keys

    @property
    def next_s(self) -> float:
        """When to look again; infinite if nothing has a deadline."""
        return self._ticks[0] * TICK_S if self._ticks else math.inf

    def arm(self, item: T, due_s: float) -> None:
        """Set the deadline of an item, in place of the one that it has."""
        tick = math.ceil(due_s / TICK_S)
        if tick == item.tick:
            return
        self.disarm(item)
        item.tick = tick
        bucket = self._buckets.get(tick)
        if bucket is not None:
            bucket.add(item)
            return
        if tick not in self._buckets:
            heapq.heappush(self._ticks, tick)
        self._buckets[tick] = {item}

    def disarm(self, item: T) -> None:
        """Take the deadline of an item away."""
        if item.tick < 0:
            return
        bucket = self._buckets[item.tick]
        assert bucket is not None, "a bucket is kept while something is in it"
        bucket.remove(item)
        if not bucket:
            self._buckets[item.tick] = None
        item.tick = -1

    def expired(self, now_s: float) -> list[T]:
        """Take out what has passed its deadline."""
        found: list[T] = []
        while self._ticks and self._ticks[0] * TICK_S <= now_s:
            bucket = self._buckets.pop(heapq.heappop(self._ticks)) or ()
            for item in bucket:
                item.tick = -1
            found += bucket
        return found
