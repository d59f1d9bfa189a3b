"""Puts the HTTP face together: the same routes for ASGI and for the lane."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from rbee.audit import NO_AUDIT, Audit
from rbee.config import ServerConfig
from rbee.logs import Log
from rbee.metrics import Metrics
from rbee.supervisor.access.access import Access
from rbee.supervisor.api.admin import admin_routes
from rbee.supervisor.api.answers import Answer
from rbee.supervisor.api.asgi import AsgiFace
from rbee.supervisor.api.description import description_routes
from rbee.supervisor.api.generation import Surroundings
from rbee.supervisor.api.guard import Guard
from rbee.supervisor.api.health import health_answers
from rbee.supervisor.api.hot import HotGet, HotRoutes
from rbee.supervisor.api.keys import NO_KEYS, key_routes
from rbee.supervisor.api.metrics import metrics_routes
from rbee.supervisor.api.models import list_models, model_routes
from rbee.supervisor.api.open_requests import OpenRequests
from rbee.supervisor.api.openai import UnixClock, generation_routes, openai_routes
from rbee.supervisor.api.ports import Generator, JwtRevocations, KeyStore, Operations
from rbee.supervisor.api.requests import request_routes
from rbee.supervisor.api.revocations import revocation_routes
from rbee.supervisor.api.routing import Endpoint, no_such_route, route
from rbee.supervisor.api.visit import Visit, visit_of


@dataclass(frozen=True, slots=True)
class Face:
    """The HTTP face, in both its forms."""

    app: ASGIApp
    hot: HotRoutes
    guard: Guard
    open_requests: OpenRequests


def make_hot_routes(
    surroundings: Surroundings,
    operations: Operations,
    config: ServerConfig,
    unix_clock: UnixClock,
) -> HotRoutes:
    """The routes that are answered without a wait."""
    health = health_answers(operations)
    gets = {path: HotGet(answer, is_quiet=True) for path, answer in health.items()}
    gets["/v1/models"] = HotGet(lambda visit: list_models(operations, visit), is_quiet=False)
    posts = {each.path: each for each in generation_routes(surroundings, config, unix_clock)}
    return HotRoutes(gets, posts)


def make_routes(
    hot: HotRoutes,
    open_requests: OpenRequests,
    operations: Operations,
    config: ServerConfig,
    more: list[Route],
) -> list[Route]:
    """Every route of the face, for ASGI. docs/api.md lists the same."""
    return [
        *(route(path, get=_at_once(g.answer), is_quiet=g.is_quiet) for path, g in hot.gets.items()),
        *openai_routes(list(hot.posts.values()), config),
        *model_routes(operations),
        *request_routes(open_requests),
        *admin_routes(operations),
        *description_routes(),
        *more,
    ]


def make_face(  # noqa: PLR0913  # what it is put together from, once each
    generator: Generator,
    operations: Operations,
    config: ServerConfig,
    log: Log,
    *,
    audit: Audit = NO_AUDIT,
    access: Access | None = None,
    keys: KeyStore = NO_KEYS,
    revocations: JwtRevocations | None = None,
    metrics: Metrics | None = None,
    unix_clock: UnixClock = time.time,
) -> Face:
    """The face. Must be called inside `trio.run`.

    Args:
      generator: takes the asks.
      operations: what operators see and do.
      audit: hears of every request for tokens.
      access: who may come in; None: everybody.
      keys: what the routes of the keys work on.
      revocations: likewise of JWTs; None: none are taken.
      metrics: counts all that comes of requests.
      unix_clock: what time it is for people. Deadlines run on trio's clock.
    """
    open_requests = OpenRequests()
    metrics = metrics or Metrics()
    surroundings = Surroundings(generator, open_requests, audit, access, metrics=metrics)
    hot = make_hot_routes(surroundings, operations, config, unix_clock)
    more = [
        *metrics_routes(metrics, operations, audit),
        *key_routes(keys, audit, config, unix_clock),
        *revocation_routes(revocations, audit, config),
    ]
    routes = make_routes(hot, open_requests, operations, config, more)
    router = Router(routes, redirect_slashes=False, default=no_such_route)
    guard = Guard(config, log, audit, access, metrics)
    return Face(AsgiFace(router, guard), hot, guard, open_requests)


def _at_once(answer: Callable[[Visit], Answer]) -> Endpoint:
    async def endpoint(request: Request) -> Answer:
        return answer(visit_of(request.scope))

    return endpoint
