"""Answers one order: gives its asks to the pool, and brings what comes back to the client.

Rule 1: an answer lives exactly as long as the call of its `Generation`. However it ends, no ask
        of it stays open.
Rule 2: nothing expected crosses the nursery: refusals are returned out of it, and raised
        after it.
Rule 3: the request's task sleeps while tokens flow: deltas go from the link's receiver task
        through `Tally` and `Outlet` to the socket.
"""

from dataclasses import dataclass
from typing import Final, cast

import trio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rbee.errors import ErrorCode, RequestError
from rbee.supervisor.api.events import DONE, failure_events
from rbee.supervisor.api.order import Order
from rbee.supervisor.api.outlet import DirectWriter, Outlet
from rbee.supervisor.api.ports import Generator
from rbee.supervisor.api.shape import Shape
from rbee.supervisor.api.sinks import Tally
from rbee.supervisor.api.visit import Visit
from rbee.wire import Delta

DIRECT: Final = "rbee.direct"  # the ASGI extension of our HTTP server; see its `DirectWriter`

_STREAM_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"x-accel-buffering", b"no"),  # nginx would hold tokens back
]


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for one generation, beside what was ordered."""

    deadline_s: float  # on trio's clock
    parked_bytes_max: int


class Generation:
    """One answer, streamed or whole, as an ASGI app."""

    def __init__(
        self, generator: Generator, order: Order, shape: Shape, terms: Terms, visit: Visit
    ) -> None:
        self._generator = generator
        self._order = order
        self._shape = shape
        self._terms = terms
        self._visit = visit
        take = self._take_streamed if order.is_streamed else self._take_whole
        self._outlet = Outlet(terms.parked_bytes_max, self._abandon)
        self._tally = Tally(len(order.asks), take, self._outlet.flush)
        self._request_ids: list[int] = []
        self._is_told = False  # the last words are on their way: who leaves now misses nothing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer.

        Raises:
          RequestError: there is no answer, and nothing was sent.
        """
        refusal: RequestError | None = None
        try:
            self._submit()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_client, receive, nursery.cancel_scope)
                deliver = self._deliver_stream if self._order.is_streamed else self._deliver_whole
                refusal = await deliver(scope, send)
                nursery.cancel_scope.cancel(reason="the answer is complete")
        finally:
            self._cancel(self._visit.outcome or "the answer is over")
            self._note_facts()
        if refusal is not None:
            raise refusal

    # --- in the link's receiver task

    def _take_whole(self, index: int, delta: Delta) -> None:
        choice = self._tally.choices[index]
        choice.texts.append(delta.text)
        choice.logprobs.extend(delta.logprobs)

    def _take_streamed(self, index: int, delta: Delta) -> None:
        self._outlet.write(self._shape.chunk(index, delta))

    def _abandon(self, reason: str) -> None:
        """Nobody reads the stream any more, or not fast enough."""
        self._note_outcome("client_gone" if reason == "disconnected" else reason)
        if reason == "slow_client":
            message = "the client read the stream too slowly"
            self._tally.fail(RequestError(ErrorCode.SLOW_CLIENT, message))
        self._cancel(reason)

    # --- in the request's task

    def _submit(self) -> None:
        remaining_s = self._terms.deadline_s - trio.current_time()
        if remaining_s <= 0:
            raise _deadline_exceeded()
        for ask, sink in zip(self._order.asks, self._tally.sinks(), strict=True):
            request_id = self._generator.submit(
                ask, sink, remaining_s=remaining_s, correlation_id=self._visit.correlation_id
            )
            self._request_ids.append(request_id)

    async def _watch_client(self, receive: Receive, answer: trio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._note_outcome("client_gone")
        answer.cancel(reason="the client has gone")

    async def _deliver_whole(self, scope: Scope, send: Send) -> RequestError | None:
        refusal = await self._wait(self._tally.ended)
        if refusal is not None:
            return refusal
        usage = self._tally.usage(self._order.choices_per_prompt)
        body = self._shape.answer(self._tally.choices, usage)
        self._is_told = True
        await Response(body, media_type="application/json")(scope, _never, send)
        return None

    async def _deliver_stream(self, scope: Scope, send: Send) -> RequestError | None:
        refusal = await self._wait(self._tally.begun)
        if refusal is not None:
            return refusal
        await send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS})
        writer = cast(DirectWriter | None, scope.get("extensions", {}).get(DIRECT))
        if writer is None:
            await self._stream_by_turns(send)
        else:
            await self._stream_directly(writer, send)
        self._is_told = True
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return None

    async def _stream_directly(self, writer: DirectWriter, send: Send) -> None:
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        self._outlet.attach(writer)
        self._close_stream(await self._wait(self._tally.ended))
        await writer.drain()

    async def _stream_by_turns(self, send: Send) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._close_stream_when_ended)
            while payload := await self._outlet.wait_kept():
                await send({"type": "http.response.body", "body": payload, "more_body": True})

    async def _close_stream_when_ended(self) -> None:
        self._close_stream(await self._wait(self._tally.ended))

    def _close_stream(self, failure: RequestError | None) -> None:
        """Write the end of a stream that has begun: usage, or the one error event; then DONE."""
        last_words = b""
        if failure is not None:
            self._note_outcome(failure.code.value)
            self._cancel(failure.code.value)
            last_words = failure_events(failure, self._visit.correlation_id)
        elif self._tally.has_finished:
            usage = self._tally.usage(self._order.choices_per_prompt)
            told = self._shape.usage_chunk(usage) if self._order.include_usage else b""
            last_words = told + DONE
        self._outlet.end(last_words)

    async def _wait(self, event: trio.Event) -> RequestError | None:
        """Wait until the deadline at most, and say what went wrong, if anything did."""
        with trio.move_on_at(self._terms.deadline_s):
            await event.wait()
        if not event.is_set():
            self._tally.fail(_deadline_exceeded())
            self._cancel("the deadline has passed")
        return self._tally.failure

    def _cancel(self, reason: str) -> None:
        """End what is open of this order. Idempotent."""
        self._tally.stop()
        for request_id in self._request_ids:
            self._generator.cancel(request_id, reason)
        self._request_ids.clear()

    def _note_outcome(self, outcome: str) -> None:
        """Only the first counts."""
        if not self._is_told and not self._visit.outcome:
            self._visit.outcome = outcome

    def _note_facts(self) -> None:
        usage = self._tally.usage(self._order.choices_per_prompt)
        self._visit.facts.update(
            prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens
        )


def _deadline_exceeded() -> RequestError:
    return RequestError(ErrorCode.DEADLINE_EXCEEDED, "the deadline of this request has passed")


async def _never() -> dict[str, object]:
    """For an answer that reads nothing: another task receives already."""
    raise AssertionError("a whole answer does not receive")
