"""What the audit log hears of those who were not let in: bounded, so that they cannot fill a disk.

The first failure of an address is told at once. Those that follow within `WINDOW_S` are counted,
and told together at its end. Pure: the time is an argument.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

WINDOW_S: Final = 60.0

# Addresses that are counted apart; what comes from more of them is counted as `OTHERS`.
ADDRESSES_MAX: Final = 1024
OTHERS: Final = "others"


# Why somebody is not let in, as `AuthFailure` has it.
REASONS: Final = (
    "missing", "malformed", "unknown", "wrong", "expired", "revoked", "throttled", "claims",
    "not_yet_valid",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Failure:
    """Somebody was not let in."""

    reason: str
    fingerprint: str | None
    route: str
    address: str


@dataclass(frozen=True, slots=True)
class Told:
    """What is to be recorded: the last failure, and how many it stands for."""

    failure: Failure
    times: int


@dataclass(slots=True)
class _Window:
    ends_s: float
    last: Failure
    count: int  # that were not told


class FailureLedger:
    """Failures by address, of the last window."""

    def __init__(self) -> None:
        self._windows: OrderedDict[str, _Window] = OrderedDict()

    def note(self, failure: Failure, now_s: float) -> Told | None:
        """Take one in. Returns what is to be recorded now."""
        window = self._windows.get(failure.address)
        if window is None and len(self._windows) < ADDRESSES_MAX:
            self._windows[failure.address] = _Window(now_s + WINDOW_S, failure, 0)
            return Told(failure, 1)
        if window is None:
            window = self._windows.setdefault(OTHERS, _Window(now_s + WINDOW_S, failure, 0))
        window.last = failure
        window.count += 1
        return None

    def due(self, now_s: float) -> list[Told]:
        """What is to be recorded of windows that have ended. To be called now and then."""
        told: list[Told] = []
        while self._windows:
            address, window = next(iter(self._windows.items()))
            if window.ends_s > now_s:
                break
            del self._windows[address]
            if window.count:
                last = window.last
                last = Failure(last.reason, last.fingerprint, last.route, address)
                told.append(Told(last, window.count))
        return told
