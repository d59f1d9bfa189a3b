"""The line of those who wait for one model: by class, and in a class in order. Pure.

Rule 1: a higher class goes first; in a class, who came first.
Rule 2: no class waits for ever. One that was passed over as often as `PASSED_OVER_MAX` allows has
        the next turn; of two such, the lower, whose turns are rarer.
Rule 3: who had its turn and comes back stands before all classes, and takes a turn of none.
"""

import math
from collections import OrderedDict
from typing import Final

from rbee.rate_limits import Priority

# So often others may be served while somebody of the class waits. By turns, not by time: however
# slow a model is, under any load a normal request gets one turn of five at least, and a low one
# one of ten.
PASSED_OVER_MAX: Final = {Priority.NORMAL: 3, Priority.LOW: 9}

_Waiting = OrderedDict[int, int]  # id -> tokens


class Line:
    """Ids of requests, each with the tokens that it may take."""

    def __init__(self) -> None:
        self._returned: _Waiting = OrderedDict()
        self._classes: dict[Priority, _Waiting] = {each: OrderedDict() for each in Priority}
        self._passed_over = dict.fromkeys(Priority, 0)
        self._where: dict[int, _Waiting] = {}

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, request_id: int) -> bool:
        return request_id in self._where

    def ids(self) -> list[int]:
        """Those that came back, then class by class; not in the order of their turns."""
        return [each for some in (self._returned, *self._classes.values()) for each in some]

    def add(self, request_id: int, tokens: int, priority: Priority) -> None:
        waiting = self._classes[priority]
        if not waiting:
            self._passed_over[priority] = 0
        waiting[request_id] = tokens
        self._where[request_id] = waiting

    def add_first(self, request_id: int, tokens: int) -> None:
        """Put back one that had its turn, before all others."""
        self._returned[request_id] = tokens
        self._returned.move_to_end(request_id, last=False)
        self._where[request_id] = self._returned

    def first(self) -> int | None:
        """The one whose turn it is; it stays."""
        if not self._where:
            return None
        return next(iter(self._returned or self._classes[self._next_class()]))

    def remove(self, request_id: int) -> int:
        """Take one out that wants no turn any more.

        Returns:
          Its tokens.
        """
        return self._where.pop(request_id).pop(request_id)

    def serve(self, request_id: int) -> int:
        """Take one out whose turn it is, and note whom that passes over.

        Returns:
          Its tokens.
        """
        mine = self._where[request_id]
        if mine is not self._returned:
            for priority, waiting in self._classes.items():
                passed_over = self._passed_over[priority] + 1
                self._passed_over[priority] = 0 if waiting is mine else passed_over
        return self.remove(request_id)

    def place(self, priority: Priority) -> int:
        """Which turn one of that class would have that came now, about; 1: the next.

        Exact while all are of one class; else a few turns of others may come between. Who comes
        later is not foreseen.
        """
        high, normal, low = (len(waiting) for waiting in self._classes.values())
        normal_every, low_every = (1 + passed for passed in PASSED_OVER_MAX.values())
        match priority:
            case Priority.HIGH:
                place = 1 + high
                place += min(normal, high // (normal_every - 1))
            case Priority.NORMAL:
                place = min(1 + high + normal, normal_every * (1 + normal))
            case Priority.LOW:
                place = min(1 + high + normal + low, low_every * (1 + low))
        if priority is not Priority.LOW:
            place += min(low, place // (low_every - 1))
        return len(self._returned) + place

    def _next_class(self) -> Priority:
        waiting = [priority for priority, ids in self._classes.items() if ids]
        due = [priority for priority in waiting if self._is_due(priority)]
        return due[-1] if due else waiting[0]

    def _is_due(self, priority: Priority) -> bool:
        return self._passed_over[priority] >= PASSED_OVER_MAX.get(priority, math.inf)
