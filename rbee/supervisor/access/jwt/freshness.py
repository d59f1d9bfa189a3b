"""When the issuer's keys are asked for again, and how long the last ones hold. Pure.

Rule 1: who comes with an unknown key may make us ask, but never more often than each
        `ASKED_EVERY_S_MIN`: ids of keys cost nothing to invent.
Rule 2: while the issuer cannot be reached its last keys hold for a bounded time.
"""

from typing import Final

ASKED_EVERY_S_MIN: Final = 10.0
RETRY_S_MIN: Final = 1.0
RETRY_S_MAX: Final = 60.0


class Freshness:
    """What was asked for when, and with what success.

    Args:
      refresh_s: from one success to the next try.
      stale_s: from when that try is due, as long as the keys hold without a success.
    """

    def __init__(self, refresh_s: float, stale_s: float, now_s: float) -> None:
        self._refresh_s = refresh_s
        self._stale_s = stale_s
        self._failures = 0  # in a row
        self._tried_s: float | None = None
        self._succeeded_s: float | None = None
        self._due_s = now_s

    @property
    def due_s(self) -> float:
        """When to ask, if nobody wants it earlier."""
        return self._due_s

    def may_ask_again(self, now_s: float) -> bool:
        """Whether somebody may want it earlier."""
        return self._tried_s is None or now_s - self._tried_s >= ASKED_EVERY_S_MIN

    def holds(self, now_s: float) -> bool:
        """Whether the last keys are still good."""
        last_s = self._succeeded_s
        return last_s is not None and now_s - last_s <= self._refresh_s + self._stale_s

    def begin(self, now_s: float) -> None:
        self._tried_s = now_s

    def succeed(self, now_s: float) -> None:
        self._failures = 0
        self._succeeded_s = now_s
        self._due_s = now_s + self._refresh_s

    def fail(self, now_s: float) -> None:
        self._failures += 1
        delay_s = RETRY_S_MIN * 2.0 ** min(self._failures - 1, 10)
        self._due_s = now_s + min(delay_s, RETRY_S_MAX, self._refresh_s)
