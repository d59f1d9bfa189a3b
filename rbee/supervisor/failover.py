"""How an answer goes on when the worker that generated it has ended. Pure.

Rule 1: token ids that were delivered are kept, and are all that the next worker needs beside
        the ask: it reads prompt and answer so far, and goes on behind them.
Rule 2: an answer may be interrupted any number of times as long as it advances; after
        ``failovers_max`` failovers in a row without a token it is given up.
"""

from array import array
from signal import Signals
from typing import Final

import msgspec

from rbee.errors import ExitCode
from rbee.wire import Delta

# These come from outside: an operator, a script, the system on its way down. No engine raises
# them against itself. A kernel that is out of memory sends SIGKILL too; whoever knows that this
# is what happened tells it as the fault.
_FROM_OUTSIDE: Final = frozenset(
    {Signals.SIGKILL, Signals.SIGTERM, Signals.SIGINT, Signals.SIGHUP, Signals.SIGQUIT}
)


class Course:
    """How far one answer has come, over all the workers that had a part in it."""

    __slots__ = (
        "_delivered", "_has_told_prompt", "_interrupted_at", "_sent_at", "failovers",
        "failovers_in_a_row",
    )  # fmt: skip

    def __init__(self) -> None:
        self.failovers = 0
        self.failovers_in_a_row = 0  # without a token between them
        self._delivered = array("I")  # 4 bytes for a token: `wire.TokenId` is no larger
        self._sent_at = 0  # tokens that were delivered when it was last sent to a worker
        self._interrupted_at = 0  # tokens that were delivered at the last failover
        self._has_told_prompt = False

    @property
    def tokens(self) -> int:
        """Tokens delivered."""
        return len(self._delivered)

    @property
    def tokens_here(self) -> int:
        """Tokens delivered by the worker that it was last sent to."""
        return len(self._delivered) - self._sent_at

    def send(self) -> tuple[int, ...]:
        """It is sent to a worker now: the token ids that this one must not bring again."""
        self._sent_at = len(self._delivered)
        return tuple(self._delivered)

    def take(self, delta: Delta) -> Delta:
        """Note what came.

        Returns:
          The delta for the client, who is told the number of prompt tokens once.
        """
        self._delivered.extend(delta.token_ids)
        if not delta.prompt_tokens:
            return delta
        if self._has_told_prompt:
            return msgspec.structs.replace(delta, prompt_tokens=0)
        self._has_told_prompt = True
        return delta

    def interrupt(self, failovers_max: int) -> bool:
        """Its worker has ended.

        Returns:
          Whether it may go on at another one.
        """
        if self.tokens > self._interrupted_at:  # also by a worker that it was withdrawn from
            self.failovers_in_a_row = 0
        self._interrupted_at = self.tokens
        if self.failovers_in_a_row >= failovers_max:
            return False
        self.failovers += 1
        self.failovers_in_a_row += 1
        return True


def may_be_a_requests_doing(
    *, was_asked: bool, fault: str, exit_code: int | None, signal: int | None
) -> bool:
    """Whether one of the requests that a worker had may be what ended it.

    Args:
      was_asked: it was drained or stopped on purpose.
      fault: why the supervisor ended it, or what else is known of the cause; "" if nothing is.
    """
    if fault:  # it hung, stood still, broke the protocol, or had no memory left
        return True
    if signal is not None:
        return signal not in _FROM_OUTSIDE
    if exit_code == ExitCode.OS_ERROR:  # whoever leaked what is lacking has long been served
        return False
    return not (was_asked and exit_code == 0)
