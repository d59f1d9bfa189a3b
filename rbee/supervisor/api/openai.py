"""``/v1/chat/completions`` and ``/v1/completions``: from a request to its `Generation`."""

import secrets
from collections.abc import Callable

import trio
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp

from rbee.config import ServerConfig
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
from rbee.supervisor.api.generation import Generation, Terms
from rbee.supervisor.api.order import Order
from rbee.supervisor.api.ports import Generator
from rbee.supervisor.api.request_body import BodyReader
from rbee.supervisor.api.routing import Endpoint, route
from rbee.supervisor.api.shape import Shape
from rbee.supervisor.api.visit import Visit, header_values, visit_of

UnixClock = Callable[[], float]
MakeShape = Callable[[str, int, Order], Shape]


def openai_routes(generator: Generator, config: ServerConfig, unix_clock: UnixClock) -> list[Route]:
    bodies = BodyReader(config)

    def endpoint(read: Callable[[bytes], Order], prefix: str, make_shape: MakeShape) -> Endpoint:
        async def generate(request: Request) -> ASGIApp:
            visit = visit_of(request.scope)
            terms = _terms(request, visit, config, unix_clock)
            order = await bodies.read(request.scope, request.receive, read)
            visit.facts.update(model=order.model, stream=order.is_streamed, choices=len(order.asks))
            answer_id = f"{prefix}-{secrets.token_hex(16)}"
            shape = make_shape(answer_id, int(unix_clock()), order)
            return Generation(generator, order, shape, terms, visit)

        return generate

    return [
        route("/v1/chat/completions", post=endpoint(read_chat, "chatcmpl", ChatShape)),
        route("/v1/completions", post=endpoint(read_completion, "cmpl", CompletionShape)),
    ]


def _terms(request: Request, visit: Visit, config: ServerConfig, unix_clock: UnixClock) -> Terms:
    """Read the deadline, and have the answer say it."""
    now_unix_s = unix_clock()
    remaining_s = read_remaining(
        header_values(request.scope, TIMEOUT_HEADER),
        header_values(request.scope, DEADLINE_HEADER),
        default_s=config.deadline_s,
        highest_s=config.deadline_s_max,
        now_unix_s=now_unix_s,
    )
    told = rfc_3339(now_unix_s + remaining_s)
    visit.headers.append((DEADLINE_HEADER.lower().encode(), told.encode()))
    return Terms(trio.current_time() + remaining_s, config.parked_bytes_max)
