"""Which worker takes a request. Pure."""

from collections.abc import Iterable
from typing import Protocol, TypeVar


class Candidate(Protocol):
    @property
    def takes_requests(self) -> bool: ...

    @property
    def open_requests(self) -> int: ...


CandidateT = TypeVar("CandidateT", bound=Candidate)


def choose(candidates: Iterable[CandidateT]) -> CandidateT | None:
    """The candidate with the fewest open requests; the first of equals. None: all are full."""
    free = (candidate for candidate in candidates if candidate.takes_requests)
    return min(free, key=lambda candidate: candidate.open_requests, default=None)


def choose_idle(candidates: Iterable[CandidateT]) -> CandidateT | None:
    """The first candidate without an open request. None: all have some, or take none."""
    idle = (each for each in candidates if each.takes_requests and not each.open_requests)
    return next(idle, None)
