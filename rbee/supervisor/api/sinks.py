"""Where deltas go: one `Tally` for each HTTP request, one sink in it for each choice.

Rule 1: all here is synchronous and runs in the link's receiver task.
Rule 2: the request's own task is woken twice: when the first delta has come, and at the end.
"""

from collections.abc import Callable

import trio

from rbee.errors import RequestError
from rbee.supervisor.api.shape import Choice, Usage
from rbee.wire import Delta


class Tally:
    """What the asks of one HTTP request have brought, together.

    Args:
      count: of asks.
      take: gets each delta with the index of its choice.
      flush: called when the deltas that came together were taken.
    """

    def __init__(
        self, count: int, take: Callable[[int, Delta], None], flush: Callable[[], None]
    ) -> None:
        self.choices = [Choice() for _ in range(count)]
        self.begun = trio.Event()  # a first delta came, or the end
        self.ended = trio.Event()  # each choice has finished, or `failure` is set, or `stop`
        self.failure: RequestError | None = None
        self._take = take
        self.flush = flush
        self._unfinished = count

    def sinks(self) -> list["ChoiceSink"]:
        return [ChoiceSink(self, index) for index in range(len(self.choices))]

    @property
    def has_finished(self) -> bool:
        """Whether all choices are complete."""
        return self._unfinished == 0

    def usage(self, choices_per_prompt: int) -> Usage:
        return Usage(
            sum(each.prompt_tokens for each in self.choices[::choices_per_prompt]),
            sum(each.completion_tokens for each in self.choices),
        )

    def push(self, index: int, delta: Delta) -> None:
        if self.ended.is_set():
            return
        choice = self.choices[index]
        if delta.prompt_tokens:
            choice.prompt_tokens = delta.prompt_tokens
        choice.completion_tokens += len(delta.token_ids)
        self._take(index, delta)
        if delta.finish is not None:
            choice.finish = delta.finish
            self._unfinished -= 1
            if self._unfinished == 0:
                self.ended.set()
        self.begun.set()

    def fail(self, error: RequestError) -> None:
        """One ask failed: so did the request."""
        if not self.ended.is_set():
            self.failure = error
            self.stop()

    def stop(self) -> None:
        """Take nothing more."""
        self.ended.set()
        self.begun.set()


class ChoiceSink:
    """The sink of one choice."""

    __slots__ = ("_index", "_tally")

    def __init__(self, tally: Tally, index: int) -> None:
        self._tally = tally
        self._index = index

    def push(self, delta: Delta) -> None:
        self._tally.push(self._index, delta)

    def flush(self) -> None:
        self._tally.flush()

    def fail(self, error: RequestError) -> None:
        self._tally.fail(error)
