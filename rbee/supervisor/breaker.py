"""The breaker of a slot: keeps what fails again and again from being tried for ever. Pure.

Closed, it lets failed workers be replaced, by the rules of `restart`. When those give up, it
opens: the slot stays empty until an operator resets it, or, where a cool-down is configured,
until one worker is tried (half open). A trial that fails opens it again at once; one that
serves for ``forget_after_s`` closes it.
"""

import enum
from dataclasses import replace

from rbee.config import RestartConfig
from rbee.supervisor.restart import Cause, Ending, Failure, Record, Verdict, judge, judge_again


class BreakerState(enum.StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


# What another try cannot mend, whoever waits how long.
_NO_TRIAL = frozenset({Cause.BAD_CONFIG})


class Breaker:
    """One slot's. Written by `keep_filled`, and by the operator's reset."""

    def __init__(self) -> None:
        self._limits = RestartConfig()  # with which it last decided
        self._state = BreakerState.CLOSED
        self.failures = 0  # in a row, as it last decided
        self.failure: Failure | None = None  # the last one; None after a reset
        self.reason = ""  # why it opened

    def state(self, ready_for_s: float | None) -> BreakerState:
        """How it stands, with a worker that has been ready so long; None: with none."""
        if self._state is BreakerState.HALF_OPEN and self._is_forgiven(ready_for_s):
            return BreakerState.CLOSED
        return self._state

    def failures_left(self, ready_for_s: float | None) -> int:
        """How many in a row still count, with a worker that has been ready so long."""
        return 0 if self._is_forgiven(ready_for_s) else self.failures

    def _is_forgiven(self, ready_for_s: float | None) -> bool:
        return ready_for_s is not None and ready_for_s >= self._limits.forget_after_s

    @property
    def trial_after_s(self) -> float | None:
        """After which time one worker may be tried; None: never, or it is not open."""
        is_open = self._state is BreakerState.OPEN
        if not is_open or self._limits.cooldown_s == 0:
            return None
        if self.failure is not None and self.failure.cause in _NO_TRIAL:
            return None
        return self._limits.cooldown_s

    def ended(self, ending: Ending, limits: RestartConfig, chance: float) -> Verdict:
        """Count the end of a worker: what is to become of the slot."""
        self._limits = limits
        self._state = self.state(ending.ready_for_s)
        verdict = judge(ending, Record(self.failures, self.failure), limits, chance)
        if self._state is BreakerState.HALF_OPEN and verdict.failures > 0:
            reason = verdict.reason or "the trial failed"
            verdict = replace(verdict, delay_s=None, reason=reason)
        if verdict.delay_s is None:
            self._state = BreakerState.OPEN
        elif self._state is not BreakerState.HALF_OPEN or verdict.failure is None:
            self._state = BreakerState.CLOSED
        self.reason = verdict.reason
        self.failures, self.failure = verdict.failures, verdict.failure
        return verdict

    def pardoned(self, pardons: int, chance: float) -> float | None:
        """Of the failures that opened it some were a request's doing.

        Returns:
          After which time the slot is filled again, and the breaker is closed; None: it is not.
        """
        record = Record(self.failures, self.failure)
        verdict = judge_again(record, pardons, self._limits, chance)
        self.failures = verdict.failures
        if verdict.delay_s is None:
            self.reason = verdict.reason
        else:
            self._state, self.reason = BreakerState.CLOSED, ""
        return verdict.delay_s

    def begin_trial(self) -> None:
        """The cool-down is over: what was before does not count, one failure is enough."""
        assert self._state is BreakerState.OPEN
        self._state, self.failures = BreakerState.HALF_OPEN, 0

    def reset(self) -> None:
        """Forget all failures."""
        self._state, self.failures, self.failure, self.reason = BreakerState.CLOSED, 0, None, ""
