"""What an answer's form must be able to do: chat and plain completions each have theirs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rbee.ask import FinishReason, TokenLogprob
from rbee.wire import Delta


@dataclass(slots=True)
class Choice:
    """What one ask has brought so far. Written by its sink alone."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish: FinishReason | None = None
    texts: list[str] = field(default_factory=list)  # empty for a stream: they are gone already
    logprobs: list[TokenLogprob] = field(default_factory=list)  # as above


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one HTTP request. A prompt counts once, whatever the number of its choices."""

    prompt_tokens: int
    completion_tokens: int
    failovers: int = 0  # how often the answer went on at another worker; told if it did

    def as_object(self) -> dict[str, int]:
        counts = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }
        return {**counts, "failovers": self.failovers} if self.failovers else counts


class Shape(Protocol):
    """Turns what an engine brings into what a client of one route expects."""

    def chunk(self, index: int, delta: Delta) -> bytes:
        """The events that tell a delta of choice ``index``; empty if it has nothing to tell.

        Called once for each delta, in order: it may remember what it told.
        """
        ...

    def usage_chunk(self, usage: Usage) -> bytes:
        """The event before the last, where the client asked for it."""
        ...

    def answer(self, choices: Sequence[Choice], usage: Usage) -> bytes:
        """The whole answer of a request that is not a stream."""
        ...
