"""A generator without workers: it answers from a script, synchronously, as the pool's link does.

Honest in what a face can see: ids count up, nothing comes before `submit` has returned, one last
word at most, nothing after `cancel`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from rbee.ask import Ask, FinishReason, TokenLogprob
from rbee.errors import RequestError
from rbee.rate_limits import Priority
from rbee.supervisor.api.ports import Sink
from rbee.wire import Delta


@dataclass
class Asked:
    """One ask that was taken. The test pushes its answer."""

    request_id: int
    ask: Ask
    sink: Sink
    remaining_s: float
    first_token_timeout_s: float
    correlation_id: str
    priority: Priority
    cache_salt: bytes = b""
    tokens: int = 0
    cancelled: str | None = None
    is_over: bool = False

    def push(
        self,
        text: str,
        *,
        finish: FinishReason | None = None,
        prompt_tokens: int = 7,
        tokens: int = 1,
        logprobs: tuple[TokenLogprob, ...] = (),
        flush: bool = True,
    ) -> None:
        """Deliver ``text`` as one delta of ``tokens`` tokens; more may follow before a flush."""
        if self.is_over:
            return
        token_ids = tuple(range(self.tokens, self.tokens + tokens))
        told = prompt_tokens if self.tokens == 0 else 0
        delta = Delta(self.request_id, self.tokens, token_ids, text, finish, told, logprobs)
        self.tokens += tokens
        self.is_over = finish is not None
        self.sink.push(delta)
        if flush:
            self.sink.flush(trio.current_time())

    def fail(self, error: RequestError) -> None:
        if not self.is_over:
            self.is_over = True
            self.sink.fail(error)


@dataclass
class FakeGenerator:
    """Takes every order, unless ``refusals`` has one for it, in turn."""

    refusals: list[RequestError | None] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    _news: trio.Event = field(default_factory=trio.Event)

    def submit(
        self,
        asks: Sequence[Ask],
        sinks: Sequence[Sink],
        *,
        remaining_s: float,
        first_token_timeout_s: float,
        correlation_id: str,
        priority: Priority = Priority.NORMAL,
        cache_salt: bytes = b"",
    ) -> list[int]:
        refusal = self.refusals.pop(0) if self.refusals else None
        if refusal is not None:
            raise refusal
        first_id = len(self.asked) + 1
        self.asked += [
            Asked(
                request_id, ask, sink, remaining_s, first_token_timeout_s, correlation_id,
                priority, cache_salt,
            )
            for request_id, (ask, sink) in enumerate(zip(asks, sinks, strict=True), first_id)
        ]  # fmt: skip
        self._wake()
        return list(range(first_id, len(self.asked) + 1))

    def cancel(self, request_id: int, reason: str) -> None:
        asked = self.asked[request_id - 1]
        if not asked.is_over:
            asked.is_over = True
            asked.cancelled = reason
            self._wake()

    async def wait_asked(self, count: int = 1) -> list[Asked]:
        """Wait until so many asks were taken."""
        while len(self.asked) < count:
            await self._news.wait()
        return self.asked

    async def wait_cancelled(self, index: int = 0) -> str:
        """Wait until an ask is cancelled, and tell the reason."""
        while (reason := self.asked[index].cancelled) is None:
            await self._news.wait()
        return reason

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()
