"""``/v1/chat/completions`` and ``/v1/completions``: from a request to its `Generation`."""

from collections.abc import Callable
from dataclasses import dataclass

import trio
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from rbee.config import ServerConfig
from rbee.errors import ErrorCode, RequestError, model_not_found
from rbee.ids import new_answer_id
from rbee.supervisor.api.asgi import loss_of
from rbee.supervisor.api.asgi_reply import AsgiReply
from rbee.supervisor.api.audited import record_start
from rbee.supervisor.api.chat_body import read_chat
from rbee.supervisor.api.chat_shape import ChatShape
from rbee.supervisor.api.completion_body import read_completion
from rbee.supervisor.api.completion_shape import CompletionShape
from rbee.supervisor.api.deadlines import (
    DEADLINE_HEADER,
    TIMEOUT_HEADER,
    read_remaining,
    rfc_3339,
)
from rbee.supervisor.api.generation import Generation, Reply, Surroundings, TimeLimits
from rbee.supervisor.api.order import Order
from rbee.supervisor.api.request_body import BodyReader
from rbee.supervisor.api.routing import route
from rbee.supervisor.api.shape import Shape
from rbee.supervisor.api.visit import Visit, visit_of

UnixClock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class GenerationRoute:
    """One route that generates, for whatever face. Synchronous."""

    path: str
    id_prefix: str  # of the answers' ids
    read: Callable[[bytes], Order]  # raises `RequestError`
    make_shape: Callable[[str, int, Order], Shape]  # from an answer's id, its time and its order
    surroundings: Surroundings
    config: ServerConfig
    unix_clock: UnixClock

    def limits(self, visit: Visit) -> TimeLimits:
        """Read the request's deadline, which counts from now.

        Raises:
          RequestError: it is malformed.
        """
        now_unix_s = self.unix_clock()
        remaining_s = read_remaining(
            visit.values(TIMEOUT_HEADER),
            visit.values(DEADLINE_HEADER),
            default_s=self.config.deadline_s,
            highest_s=self.config.deadline_s_max,
            now_unix_s=now_unix_s,
        )
        return TimeLimits(
            trio.current_time() + remaining_s,
            self.config.first_token_timeout_s,
            self.config.stall_timeout_s,
            self.config.keep_alive_comment_s,
            now_unix_s + remaining_s,
        )

    def open(self, order: Order, limits: TimeLimits, visit: Visit, reply: Reply) -> Generation:
        """The generation of an order; `Generation.start` submits it.

        Raises:
          RequestError: who makes it may not use the model, or nothing any more.
        """
        self._check_principal(visit, order.model)
        visit.model = order.model
        record_start(self.surroundings.audit, visit, order)
        visit.facts.update(model=order.model, stream=order.is_streamed, choices=len(order.asks))
        answer_id = new_answer_id(self.id_prefix)
        shape = self.make_shape(answer_id, int(self.unix_clock()), order)
        return Generation(
            self.surroundings, answer_id, order, shape, reply=reply, visit=visit, limits=limits
        )

    def _check_principal(self, visit: Visit, model: str) -> None:
        """A body may take its time: who was let in with its head may have lost the right since."""
        principal, access = visit.principal, self.surroundings.access
        if principal is None or not principal.may_use(model):
            raise model_not_found()
        if access is not None and (fault := access.lapsed(principal)) is not None:
            raise fault


def tell_deadline(visit: Visit, limits: TimeLimits) -> None:
    """Have the answer say which deadline holds."""
    told = rfc_3339(limits.deadline_unix_s)
    visit.headers.append((DEADLINE_HEADER.lower().encode(), told.encode()))


def generation_routes(
    surroundings: Surroundings, config: ServerConfig, unix_clock: UnixClock
) -> list[GenerationRoute]:
    common = surroundings, config, unix_clock
    return [
        GenerationRoute("/v1/chat/completions", "chatcmpl", read_chat, ChatShape, *common),
        GenerationRoute("/v1/completions", "cmpl", read_completion, CompletionShape, *common),
    ]


def openai_routes(routes: list[GenerationRoute], config: ServerConfig) -> list[Route]:
    """The same for ASGI."""
    bodies = BodyReader(config)
    kept_bytes_max = config.parked_bytes_max
    return [route(each.path, post=_Endpoint(each, bodies, kept_bytes_max)) for each in routes]


class _Endpoint:
    """Reads the request, and returns the ASGI app that answers it."""

    def __init__(self, hot: GenerationRoute, bodies: BodyReader, kept_bytes_max: int) -> None:
        self._route = hot
        self._bodies = bodies
        self._kept_bytes_max = kept_bytes_max

    async def __call__(self, request: Request) -> ASGIApp:
        visit = visit_of(request.scope)
        limits = self._route.limits(visit)
        tell_deadline(visit, limits)
        order = await self._bodies.read(visit, request.receive, self._route.read, limits.deadline_s)

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            reply = AsgiReply(
                visit, self._kept_bytes_max, lambda reason: _break(generation, reason)
            )
            generation = self._route.open(order, limits, visit, reply)
            await _answer(generation, reply, scope, receive, send)

        return answer


async def _answer(
    generation: Generation, reply: AsgiReply, scope: Scope, receive: Receive, send: Send
) -> None:
    """Answer. An answer lives exactly as long as this call.

    Raises:
      RequestError: there is no answer, and nothing was sent.
    """
    refusal: RequestError | None = None
    generation.start(trio.current_time())
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch_client, generation, scope, receive, nursery.cancel_scope)
            nursery.start_soon(_watch_time, generation)
            try:
                await reply.carry(scope, send)
            except RequestError as error:  # nothing expected crosses the nursery
                refusal = error
            nursery.cancel_scope.cancel(reason="the answer is complete")
    finally:
        generation.abandon("shut_down")
    if refusal is not None:
        raise refusal


async def _watch_client(
    generation: Generation, scope: Scope, receive: Receive, answer: trio.CancelScope
) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    if not generation.is_over:  # else its answer is on its way, and the door sees how that ends
        generation.abandon(loss_of(scope) or "client_gone")
        answer.cancel(reason="the client has gone")


async def _watch_time(generation: Generation) -> None:
    while not generation.is_over:
        await trio.sleep_until(generation.next_check_s(trio.current_time()))
        generation.check_time(trio.current_time())


def _break(generation: Generation, reason: str) -> None:
    """The client gets no more, or not fast enough."""
    if reason == "slow_client":
        message = "the client read the stream too slowly"
        generation.fail(RequestError(ErrorCode.SLOW_CLIENT, message))
    else:
        generation.abandon("client_gone")
