"""Requests that wait for a worker: bounded, in order, by model. Pure."""

import math
from collections import OrderedDict
from typing import Final

# Retry-After is told in whole seconds, within these bounds.
RETRY_AFTER_S_MIN: Final = 1
RETRY_AFTER_S_MAX: Final = 60

# How much the newest request counts in the mean service time.
NEWEST_WEIGHT: Final = 0.1


class Backlog:
    """Ids of waiting requests, first come first served within a model.

    Args:
      requests_max: over all models.
    """

    def __init__(self, requests_max: int) -> None:
        self._requests_max = requests_max
        self._waiting: dict[str, OrderedDict[int, None]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def is_full(self) -> bool:
        return self._count >= self._requests_max

    def add(self, model: str, request_id: int) -> None:
        self._waiting.setdefault(model, OrderedDict())[request_id] = None
        self._count += 1

    def add_first(self, model: str, request_id: int) -> None:
        """Put back one that had its turn. The bound does not hold: it was admitted already."""
        self.add(model, request_id)
        self._waiting[model].move_to_end(request_id, last=False)

    def first(self, model: str) -> int | None:
        """The one whose turn it is; it stays."""
        return next(iter(self._waiting.get(model, ())), None)

    def remove(self, model: str, request_id: int) -> bool:
        """Take one out. False: it does not wait here."""
        waiting = self._waiting.get(model)
        if waiting is None or request_id not in waiting:
            return False
        del waiting[request_id]
        self._count -= 1
        return True

    def waiting(self, model: str) -> list[int]:
        return list(self._waiting.get(model, ()))


class Rates:
    """How long requests take, as a moving mean; for a Retry-After that is not made up."""

    def __init__(self) -> None:
        self._mean_s: float | None = None

    def note(self, service_s: float) -> None:
        """A request was answered in full, ``service_s`` after it was sent to a worker."""
        if self._mean_s is None:
            self._mean_s = service_s
        else:
            self._mean_s += NEWEST_WEIGHT * (service_s - self._mean_s)

    def retry_after_s(self, waiting: int, capacity: int) -> float:
        """When a place in the queue should be free.

        Args:
          waiting: requests in the queue.
          capacity: requests that are worked on at once; 0 while no worker is ready.
        """
        if self._mean_s is None or capacity <= 0:
            return float(RETRY_AFTER_S_MIN)
        expected_s = math.ceil(self._mean_s * max(1, waiting) / capacity)
        return float(min(RETRY_AFTER_S_MAX, max(RETRY_AFTER_S_MIN, expected_s)))
