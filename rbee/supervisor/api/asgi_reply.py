"""An answer on its way through ASGI.

Rule 1: what a `Generation` tells is kept, or goes to the socket at once where the server offers
        a direct writer. The request's own task is woken at the first word and at the last, not
        for what is between.
Rule 2: what cannot leave yet is bounded. Over the bound the stream is broken as "slow_client":
        what was kept and what still comes is dropped, but for the words that end it.
Rule 3: of an answer that was broken off the server hears no end, so that it breaks it off, too:
        its client must not take it for a whole one.
"""

from collections.abc import Callable
from typing import Final, Protocol, cast

import trio
from starlette.types import Scope, Send

from rbee.errors import RequestError
from rbee.supervisor.api.answers import JSON_TYPE, Answer
from rbee.supervisor.api.events import failure_events
from rbee.supervisor.api.visit import Visit

DIRECT: Final = "rbee.direct"  # the ASGI extension of our HTTP server; see its `DirectWriter`

STREAM_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"x-accel-buffering", b"no"),  # nginx would hold tokens back
]


class DirectWriter(Protocol):
    """A way past the server's tasks to the socket, as the HTTP server offers it."""

    on_broken: Callable[[str], object] | None  # called once, with why nothing arrives any more

    def write_nowait(self, payload: bytes) -> None:
        """Send what the kernel takes, and park the rest, bounded."""
        ...

    async def drain(self) -> None:
        """Wait until the kernel has everything, or the client was given up."""
        ...


class AsgiReply:
    """The `Reply` of one ASGI request.

    Args:
      kept_bytes_max: bytes that may wait here.
      on_broken: called once, at most, with the reason why the client gets no more.
    """

    def __init__(
        self, visit: Visit, kept_bytes_max: int, on_broken: Callable[[str], object]
    ) -> None:
        self._visit = visit
        self._kept_bytes_max = kept_bytes_max
        self._on_broken = on_broken
        self._whole: Answer | None = None
        self._refusal: RequestError | None = None
        self._writer: DirectWriter | None = None
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._is_broken = False
        self._is_complete = False  # the generation has told its end, and not to the wind
        self._begun = trio.Event()  # by whatever word
        self._ended = trio.Event()
        self._news = trio.Event()

    # --- for the generation

    def answer(self, body: bytes) -> None:
        self._whole = Answer(200, [JSON_TYPE], body)
        self._begun.set()

    def write(self, payload: bytes) -> None:
        self._begun.set()
        if self._is_broken or not payload:
            return
        if self._writer is not None:
            self._writer.write_nowait(payload)
            return
        self._keep(payload)
        if self._kept_bytes > self._kept_bytes_max:
            self._is_broken = True
            self._take()
            self._on_broken("slow_client")  # whose last words are still kept

    def end(self, last_words: bytes) -> None:
        self._begun.set()
        self._is_complete = not self._ended.is_set()
        self._ended.set()
        if self._writer is not None:
            self._writer.write_nowait(last_words)
        else:
            self._keep(last_words)

    def fail(self, error: RequestError) -> None:
        if self._visit.status is None:
            self._refusal = error
            self._begun.set()
        else:
            self.end(failure_events(error, self._visit.correlation_id))

    # --- for the request's task

    async def carry(self, scope: Scope, send: Send) -> None:
        """Send the answer, as it comes; of one that is broken off no end.

        Raises:
          RequestError: there is none; nothing was sent.
        """
        await self._begun.wait()
        if self._refusal is not None:
            raise self._refusal
        if self._whole is not None:
            await self._whole(scope, _never, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
        writer = cast(DirectWriter | None, scope.get("extensions", {}).get(DIRECT))
        if writer is None:
            await self._send_by_turns(send)
        else:
            await send({"type": "http.response.body", "body": b"", "more_body": True})
            self._attach(writer)
            await self._ended.wait()
            await writer.drain()
            if not self._is_complete:
                return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _attach(self, writer: DirectWriter) -> None:
        """Send what was kept, and everything from now on, through ``writer``."""
        self._writer = writer
        writer.on_broken = self._break_off
        writer.write_nowait(self._take())

    def _break_off(self, reason: str) -> None:
        self._is_broken = True
        self._ended.set()
        self._on_broken(reason)

    async def _send_by_turns(self, send: Send) -> None:
        while True:
            if payload := self._take():
                await send({"type": "http.response.body", "body": payload, "more_body": True})
            elif self._ended.is_set():
                return
            else:
                self._news = trio.Event()
                await self._news.wait()

    def _keep(self, payload: bytes) -> None:
        self._kept.append(payload)
        self._kept_bytes += len(payload)
        self._news.set()

    def _take(self) -> bytes:
        payload = b"".join(self._kept)
        self._kept.clear()
        self._kept_bytes = 0
        return payload


async def _never() -> dict[str, object]:
    """For an answer that reads nothing: another task receives already."""
    raise AssertionError("a whole answer does not receive")
