"""Answers one order: gives its asks to the pool, and brings what comes back to the client.

A face opens a `Generation` with a `Reply`, its own way to tell an answer, and watches what the
generation cannot see: the client's going and the time.

Rule 1: all here is synchronous. What the pool brings is passed on in the link's receiver task;
        no task is woken for it.
Rule 2: a generation tells its reply exactly one end: `answer`, `end` or `fail`; or none, after
        `abandon`. However it ends, no ask of it stays open.
"""

from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec

from rbee.audit import NO_AUDIT, Audit
from rbee.errors import ErrorCode, RequestError
from rbee.metrics import Metrics
from rbee.rate_limits import Priority
from rbee.supervisor.access.access import Access
from rbee.supervisor.access.allowances import Lease
from rbee.supervisor.access.cache_salts import CacheSalts
from rbee.supervisor.access.principal import Principal
from rbee.supervisor.api.deadlines import deadline_exceeded
from rbee.supervisor.api.events import DONE, KEEP_ALIVE
from rbee.supervisor.api.open_requests import OpenRequests
from rbee.supervisor.api.order import Order
from rbee.supervisor.api.ports import Generator
from rbee.supervisor.api.shape import Choice, Shape, Usage
from rbee.supervisor.api.visit import Visit
from rbee.wire import Delta

FAILOVERS_HEADER: Final = b"x-rbee-failovers"


class Reply(Protocol):
    """How a face tells the answer of one generation. Nothing of it waits or raises.

    Either `answer`, or `write` as often as there is something, and then `end`. Instead of any of
    these may come `fail`, and then nothing more.
    """

    def answer(self, body: bytes) -> None:
        """The whole answer, in JSON."""
        ...

    def write(self, payload: bytes) -> None:
        """The answer is a stream of events, and here are more of them; maybe none yet."""
        ...

    def end(self, last_words: bytes) -> None:
        """The last of the stream."""
        ...

    def fail(self, error: RequestError) -> None:
        """There is no answer; or, where its status has left, no more of it."""
        ...


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """How long a generation may take."""

    deadline_s: float  # on trio's clock
    first_token_timeout_s: float  # from its start
    stall_timeout_s: float  # between tokens
    keep_alive_comment_s: float = 0.0  # a stream in which nothing comes for so long says so; 0: no
    deadline_unix_s: float = 0.0  # the deadline, for people


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all generations share."""

    generator: Generator
    open_requests: OpenRequests
    audit: Audit = NO_AUDIT
    access: Access | None = None  # None: nobody is limited
    cache_salts: CacheSalts = field(default_factory=CacheSalts)
    metrics: Metrics = field(default_factory=Metrics)


class Generation:
    """One answer, streamed or whole.

    Args:
      answer_id: "chatcmpl-…". By this and by its correlation id it can be cancelled.
    """

    # Far memory is what a token costs most: each stream's objects are few, and small.
    __slots__ = (
        "_access", "_cache_salt", "_choices", "_commented_s", "_failovers", "_generator",
        "_has_begun", "_ids", "_is_over", "_lease", "_limits", "_meter", "_open_requests", "_order",
        "_progress_s", "_reply", "_request_ids", "_shape", "_started_s", "_unfinished", "_visit",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913  # all that makes an answer
        self,
        surroundings: Surroundings,
        answer_id: str,
        order: Order,
        shape: Shape,
        *,
        reply: Reply,
        visit: Visit,
        limits: TimeLimits,
    ) -> None:
        self._open_requests = surroundings.open_requests
        self._generator = surroundings.generator
        self._cache_salt = surroundings.cache_salts.of(visit.principal)
        self._access = surroundings.access
        self._lease: Lease | None = None
        self._meter = surroundings.metrics.meter(order.model)
        self._ids = (answer_id, visit.correlation_id)
        self._limits = limits
        self._started_s = self._progress_s = self._commented_s = 0.0
        self._order = order
        self._shape = shape
        self._reply = reply
        self._visit = visit
        self._choices = [_ChoiceSink(self, index) for index in range(len(order.asks))]
        self._unfinished = len(order.asks)
        self._request_ids: list[int] = []
        self._failovers = 0
        self._has_begun = False
        self._is_over = False

    @property
    def is_over(self) -> bool:
        return self._is_over

    @property
    def principal(self) -> Principal | None:
        return self._visit.principal

    def next_check_s(self, now_s: float) -> float:
        """When the face is to call `check_time`; it may be that nothing is wrong then."""
        limits = self._limits
        # A first token that comes until then brings the end of a stall nearer, but not before.
        due_s = min(limits.deadline_s, self._due_by_progress_s(), now_s + limits.stall_timeout_s)
        if not limits.keep_alive_comment_s or not self._order.is_streamed:
            return due_s
        silent_since_s = max(self._progress_s, self._commented_s) or now_s
        return min(due_s, silent_since_s + limits.keep_alive_comment_s)

    def start(self, now_s: float) -> None:
        """Submit the asks.

        Raises:
          RequestError: refused; nothing was taken.
        """
        self._started_s = now_s
        remaining_s = self._limits.deadline_s - now_s
        if remaining_s <= 0:
            raise deadline_exceeded()
        try:
            self._take_lease()
            self._submit(remaining_s)
        except RequestError as error:
            if self._lease is not None:
                self._lease.refund(self._visit.headers)
            self.abandon(error.code.value)
            raise
        except Exception:
            self.abandon(ErrorCode.INTERNAL_ERROR.value)
            raise
        if not self._is_over:  # else one of them has failed meanwhile, and has told so
            for each in self._ids:
                self._open_requests.add(each, self)

    def _take_lease(self) -> None:
        """Count the request where its principal is limited.

        Raises:
          RequestError: it may not be made now.
        """
        principal = self._visit.principal
        if self._access is not None and principal is not None:
            self._lease = self._access.allowances.admit(principal, self._visit.headers)

    def _submit(self, remaining_s: float) -> None:
        principal = self._visit.principal
        request_ids = self._generator.submit(
            self._order.asks, self._choices,
            remaining_s=remaining_s, first_token_timeout_s=self._limits.first_token_timeout_s,
            correlation_id=self._visit.correlation_id,
            priority=Priority.NORMAL if principal is None else principal.limits.priority,
            cache_salt=self._cache_salt,
        )  # fmt: skip
        if not self._is_over:
            self._request_ids = request_ids
            return
        for request_id in request_ids:
            self._generator.cancel(request_id, self._visit.outcome)

    def check_time(self, now_s: float) -> None:
        """Fail if the deadline, or the time that a token may take, has passed.

        Of a stream that has begun and waits for its next token, say that it is there. Not before
        its first token: its status would have left. So no comment outlives a stall.
        """
        if now_s >= self._limits.deadline_s:
            self.fail(deadline_exceeded())
        elif now_s >= self._due_by_progress_s():
            what = "next" if self._progress_s else "first"
            self.fail(deadline_exceeded(f"the {what} token of this request did not come in time"))
        elif self._has_begun and self._limits.keep_alive_comment_s:
            silent_since_s = max(self._progress_s, self._commented_s)
            if now_s >= silent_since_s + self._limits.keep_alive_comment_s:
                self._commented_s = now_s
                self._reply.write(KEEP_ALIVE)

    def cancel(self) -> None:
        """Somebody asked for its end."""
        self.fail(RequestError(ErrorCode.CANCELLED, "this request was cancelled on demand"))

    def fail(self, error: RequestError) -> None:
        """There will be no more: tell the client so."""
        if self._visit.status is not None and not self._is_over:
            self._reply.write(self._take_unsent())
        if self._is_over:  # it was, or the client has gone
            return
        self._close(error.code.value)
        self._reply.fail(error)

    def abandon(self, outcome: str) -> None:
        """Nobody will hear the rest: stop without a word."""
        if not self._is_over:
            self._close(outcome)

    def push(self, choice: "_ChoiceSink", delta: Delta) -> None:
        """Take what a choice has got."""
        if self._is_over:
            return
        if self._lease is not None:
            self._count(self._lease, choice, delta)
        if delta.prompt_tokens:
            choice.prompt_tokens = delta.prompt_tokens
        choice.completion_tokens += len(delta.token_ids)
        if self._order.is_streamed:
            self._has_begun = True
            choice.unsent = delta if choice.unsent is None else join(choice.unsent, delta)
        else:
            choice.texts.append(delta.text)
            choice.logprobs.extend(delta.logprobs)
        if delta.finish is not None:
            choice.finish = delta.finish
            self._unfinished -= 1
            if self._unfinished == 0:
                self._complete()

    def _count(self, lease: Lease, choice: "_ChoiceSink", delta: Delta) -> None:
        """Count what a delta has cost. Of the choices of a prompt the first counts its tokens."""
        tokens = len(delta.token_ids)
        if choice.index % self._order.choices_per_prompt == 0:
            tokens += max(0, delta.prompt_tokens - choice.prompt_tokens)
        lease.count_tokens(tokens)

    def measure(self, tokens: int, since_s: float, now_s: float) -> None:
        """So many tokens of a choice came together. ``since_s``: when its last came; 0: never."""
        if since_s:
            self._meter.more_came(tokens, now_s - since_s)
        else:
            self._meter.first_came(tokens, now_s - self._visit.arrived_s)

    def flush(self, now_s: float) -> None:
        """Bring the client what was pushed."""
        if self._is_over:
            return
        self._progress_s = now_s
        if self._has_begun:
            self._reply.write(self._take_unsent())

    def moved(self) -> None:
        """A worker has ended under it; what was delivered stands, and another worker goes on."""
        self._failovers += 1
        self._meter.failed_over()
        self._visit.facts["failovers"] = self._failovers

    def _due_by_progress_s(self) -> float:
        if self._progress_s:
            return self._progress_s + self._limits.stall_timeout_s
        return self._started_s + self._limits.first_token_timeout_s

    def _complete(self) -> None:
        self._request_ids.clear()  # the generator has forgotten them
        usage, choices, unsent = self._usage(), self._choices, self._take_unsent()
        self._close("")
        if self._order.is_streamed:
            told = self._shape.usage_chunk(usage) if self._order.include_usage else b""
            self._reply.end(unsent + told + DONE)
        else:
            if usage.failovers:
                self._visit.headers.append((FAILOVERS_HEADER, b"%d" % usage.failovers))
            self._reply.answer(self._shape.answer(choices, usage))

    def _take_unsent(self) -> bytes:
        """The events for all that has come since the last flush: one for each choice."""
        told = b""
        for choice in self._choices:
            if choice.unsent is not None:
                told += self._shape.chunk(choice.index, choice.unsent)
                choice.unsent = None
        return told

    def _close(self, outcome: str) -> None:
        """End what is open of this order, and note how it went."""
        self._is_over = True
        self._visit.note_outcome(outcome)
        usage = self._usage()
        self._visit.facts.update(
            prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens
        )
        self._meter.ended(usage.prompt_tokens)
        for request_id in self._request_ids:
            self._generator.cancel(request_id, outcome)
        self._request_ids.clear()
        if self._lease is not None:
            self._lease.end()
        for each in self._ids:
            self._open_requests.discard(each, self)
        self._choices = []  # which hold this in turn: without the collector it is gone, too

    def _usage(self) -> Usage:
        return Usage(
            sum(each.prompt_tokens for each in self._choices[:: self._order.choices_per_prompt]),
            sum(each.completion_tokens for each in self._choices),
            self._failovers,
        )


class _ChoiceSink(Choice):
    """A choice of a generation, as the pool sees it."""

    __slots__ = ("_came_s", "_generation", "_measured", "index", "unsent")

    def __init__(self, generation: Generation, index: int) -> None:
        super().__init__()
        self._generation = generation
        self.index = index
        self.unsent: Delta | None = None  # of a stream: what came since the last flush
        self._measured = 0  # tokens that came before the last flush
        self._came_s = 0.0  # when the last of them did

    def push(self, delta: Delta) -> None:
        self._generation.push(self, delta)

    def flush(self, now_s: float) -> None:
        tokens = self.completion_tokens - self._measured
        if tokens:
            self._generation.measure(tokens, self._came_s, now_s)
            self._measured, self._came_s = self.completion_tokens, now_s
        self._generation.flush(now_s)

    def fail(self, error: RequestError) -> None:
        self._generation.fail(error)

    def moved(self) -> None:
        self._generation.moved()


def join(first: Delta, second: Delta) -> Delta:
    """What came for one choice, one after the other, as if it had come at once."""
    return msgspec.structs.replace(
        second,
        token_ids=first.token_ids + second.token_ids,
        text=first.text + second.text,
        logprobs=first.logprobs + second.logprobs,
    )
