"""hypercorn's HTTP/1.1, with what we change in it.

`Http1Protocol` is one connection's protocol, `Http1Stream` one request. What is changed:
heads pass the guard; there is no HTTP/2 and no WebSocket to switch to; a request's end is
acted on at once, not in the app's task, where a cancelled app would lose it; an answer's
head leaves together with the first of its body; error bodies have our one shape.
"""

import http
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol, cast

import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Event, RawData
from hypercorn.protocol.events import (
    Body,
    EndBody,
    Request,
    Response,
    StreamClosed,
)
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import (
    AppWrapper,
    ASGIReceiveEvent,
    ASGISendEvent,
    ConnectionState,
    Scope,
    TaskGroup,
)

from rbee.errors import ErrorCode, RequestError
from rbee.logs import Log
from rbee.supervisor.http_server.guard import BODY_CUT_SHORT, Refusal, error_answer, find_fault
from rbee.supervisor.http_server.hang_ups import HangUps
from rbee.supervisor.http_server.limits import HttpLimits
from rbee.supervisor.http_server.outbox import DirectWriter, Outbox

# Requests that a client sends on while one is being answered. Over this the rest stays in the
# kernel, which makes the client wait.
PIPELINED_BYTES_MAX: Final = 64 * 1024

_CLOSE: Final = (b"connection", b"close")
_REASONS: Final = {status.value: status.phrase.encode() for status in http.HTTPStatus}

Send = Callable[[ASGISendEvent | None], Awaitable[None]]
Put = Callable[[ASGIReceiveEvent], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all connections of a server share."""

    app: AppWrapper
    config: Config
    context: WorkerContext
    limits: HttpLimits
    log: Log
    shutdown: trio.Event  # set: finish what runs, take nothing new
    draining: trio.Event  # set, before that: each answer that begins is its connection's last
    hang_ups: HangUps
    is_tls: bool = False


class Carrier(Protocol):
    """What the protocol needs from the connection that carries it."""

    outbox: Outbox
    writer: DirectWriter | None

    @property
    def has_hung_up(self) -> bool:
        """Whether the client is gone, and the app was told so."""
        ...

    async def spawn_app(self, app: AppWrapper, config: Config, scope: Scope, send: Send) -> Put:
        """Run the app for one request."""
        ...

    def end_request(self, *, can_go_on: bool) -> None:
        """The answer is complete, or never will be. Otherwise the connection ends."""
        ...

    def fail_body(self, fault: RequestError) -> None:
        """The rest of a request's body cannot be had; the app answers."""
        ...

    def note_refusal(self, status: int) -> None:
        """A request was refused; the connection ends."""
        ...


class Http1Stream(HTTPStream):
    """One request and its answer."""

    protocol: "Http1Protocol"

    async def app_send(self, message: ASGISendEvent | None) -> None:
        if self.closed:
            return
        if message is None:
            self.protocol.abandon()
            return
        await super().app_send(message)
        if message["type"] == "http.response.body" and message.get("more_body", False):
            await self.protocol.flush()


class Http1Protocol(H11Protocol):
    """What is said on one connection. Told what was read by `receive`, acts in `proceed`."""

    stream: Http1Stream | None
    connection: h11.Connection

    def __init__(
        self,
        surroundings: Surroundings,
        carrier: Carrier,
        client: tuple[str, int] | None,
        server: tuple[str, int] | None,
    ) -> None:
        super().__init__(
            surroundings.app, surroundings.config, surroundings.context,
            cast(TaskGroup, carrier),  # of a task group, a stream uses only `spawn_app`
            ConnectionState({}), surroundings.is_tls, client, server, self._send,
        )  # fmt: skip
        self._limits = surroundings.limits
        self._draining = surroundings.draining
        self._carrier = carrier
        self._outbox = carrier.outbox
        self._is_over = False
        self._refusal: Refusal | None = None  # of the body of the request that the app has

    @property
    def has_unread(self) -> bool:
        """Whether something was received that is part of no request so far."""
        return bool(self.connection.trailing_data[0])

    @property
    def has_last_request(self) -> bool:
        """Whether the client has said all that it may say on this connection."""
        return self.connection.their_state is h11.MUST_CLOSE

    @property
    def has_whole_request(self) -> bool:
        return self.connection.their_state in (h11.DONE, h11.MUST_CLOSE)

    @property
    def is_in_body(self) -> bool:
        """Whether an answer waits for the rest of a request's body, as far as one can see."""
        is_coming = self.connection.their_state is h11.SEND_BODY and not self._is_over
        return is_coming and not self._has_begun()

    @property
    def is_full(self) -> bool:
        """Whether no more may be received before a request of what is here was taken up."""
        unread_bytes = len(self.connection.trailing_data[0])
        return not self._has_heard_all and unread_bytes > PIPELINED_BYTES_MAX

    @property
    def _has_heard_all(self) -> bool:
        return self._is_over or self.has_last_request

    def receive(self, data: bytes) -> None:
        """Take what was read. Behind a last request nobody will read it."""
        if not self._has_heard_all:
            self.connection.receive_data(data)

    async def proceed(self) -> None:
        """Act on what was received, as far as it goes."""
        while not self._has_heard_all:
            if self.connection.their_state is h11.IDLE:
                fault = find_fault(self.connection.trailing_data[0], self._limits)
                if fault is not None:
                    self._refuse(fault)
                    return
            elif self.connection.they_are_waiting_for_100_continue:
                await self._send_h11_event(h11.InformationalResponse(status_code=100, headers=[]))
            try:
                event = self.connection.next_event()
            except h11.RemoteProtocolError as error:
                self._refuse(Refusal(int(error.error_status_hint), "the request is malformed"))
                return
            if not await self._act(event):
                return

    def give_up_body(self) -> None:
        """The server closes, and the rest of a body is waited for no more."""
        self._refuse(BODY_CUT_SHORT)

    async def _act(self, event: h11.Event | type[h11.NEED_DATA | h11.PAUSED]) -> bool:
        """False: nothing more can be done before more is received, or the answer is complete."""
        if isinstance(event, h11.Request):
            await self._open_stream(event)
        elif self.stream is None:
            return False
        elif isinstance(event, h11.Data):
            await self.stream.handle(Body(stream_id=STREAM_ID, data=bytes(event.data)))
        elif isinstance(event, h11.EndOfMessage):
            await self.stream.handle(EndBody(stream_id=STREAM_ID))
        else:
            return False
        return True

    async def _open_stream(self, request: h11.Request) -> None:
        stream = Http1Stream(
            self.app, self.config, self.context, self.task_group,
            self.ssl, self.client, self.server, self.stream_send, STREAM_ID,
        )  # fmt: skip
        stream.protocol = self
        self.stream = stream
        await stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=list(request.headers),
                http_version=request.http_version.decode("ascii"),
                method=request.method.decode("ascii"),
                raw_path=request.target,
                state=self.connection_state,
            )
        )

    async def stream_send(self, event: StreamEvent) -> None:
        """Carry out what hypercorn's stream says."""
        if isinstance(event, Response) and event.status_code >= 200:
            self._hold_head(event)
        elif isinstance(event, StreamClosed):
            self._end_request()
        else:
            if isinstance(event, EndBody) and self._carrier.writer is not None:
                self._carrier.writer.close()
            await super().stream_send(event)

    def _hold_head(self, event: Response) -> None:
        headers = [*event.headers, *self.config.response_headers("h11")]
        # Of a body that is not here yet, nobody will look for the end.
        is_last = self.connection.their_state in (h11.SEND_BODY, h11.ERROR)
        if (is_last or self._draining.is_set()) and _CLOSE not in headers:
            headers.append(_CLOSE)
        reason = _REASONS.get(event.status_code, b"")
        head = h11.Response(status_code=event.status_code, headers=headers, reason=reason)
        self._outbox.hold(self.connection.send(head))
        writer = self._carrier.writer
        has_length = any(name.lower() == b"content-length" for name, _ in headers)
        if writer is not None and not has_length and event.status_code not in (204, 304):
            writer.open()

    def _end_request(self) -> None:
        assert self.stream is not None
        self.stream.closed = True
        self.stream = None
        is_whole = self.connection.our_state is h11.DONE and self.connection.their_state is h11.DONE
        can_go_on = is_whole and self._outbox.broken is None
        if can_go_on:
            self.connection.start_next_cycle()
        self._is_over = not can_go_on
        self._carrier.end_request(can_go_on=can_go_on)

    def abandon(self) -> None:
        """The app ended without a whole answer: say so, or break the answer off visibly."""
        if not self._has_begun():
            self._outbox.forget_held()
            if self._refusal is not None:
                self._push_refusal(self._refusal)
            elif not self._carrier.has_hung_up:
                message = "the server failed to answer; its log has the reason"
                self._outbox.push(error_answer(500, ErrorCode.INTERNAL_ERROR, message))
        self._end_request()

    def _has_begun(self) -> bool:
        """Whether any byte of an answer is on its way."""
        is_ahead = self.connection.our_state in (h11.IDLE, h11.SEND_RESPONSE)
        return not is_ahead and not self._outbox.has_held

    def _refuse(self, refusal: Refusal) -> None:
        """Read no more. Behind a good head the app answers; else we do, and end the connection."""
        self._is_over = True
        if self.stream is not None and not self._has_begun():
            self._refusal = refusal
            self._carrier.fail_body(RequestError(refusal.code, refusal.message))
            return
        if self.stream is None:
            self._push_refusal(refusal)
        else:  # an answer is under way: break it off
            self.stream.closed = True
            self.stream = None
        self._carrier.note_refusal(refusal.status)

    def _push_refusal(self, refusal: Refusal) -> None:
        answer = error_answer(refusal.status, refusal.code, refusal.message)
        self._outbox.push(answer)

    async def flush(self) -> None:
        """See an answer's head off although its body is still empty."""
        self._outbox.push(b"")
        await self._outbox.wait_flushed()

    async def _send(self, event: Event) -> None:
        assert isinstance(event, RawData)
        self._outbox.push(event.data)
        await self._outbox.wait_flushed()
