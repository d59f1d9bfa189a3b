"""Puts the HTTP face together."""

import time

from starlette.routing import Route, Router
from starlette.types import ASGIApp

from rbee.config import ServerConfig
from rbee.logs import Log
from rbee.supervisor.api.admin import admin_routes
from rbee.supervisor.api.guard import Guard
from rbee.supervisor.api.health import health_routes
from rbee.supervisor.api.models import model_routes
from rbee.supervisor.api.openai import UnixClock, openai_routes
from rbee.supervisor.api.ports import Generator, Operations
from rbee.supervisor.api.routing import no_such_route


def make_routes(
    generator: Generator, operations: Operations, config: ServerConfig, unix_clock: UnixClock
) -> list[Route]:
    """Every route of the face. docs/api.md lists the same."""
    return [
        *health_routes(operations),
        *openai_routes(generator, config, unix_clock),
        *model_routes(operations),
        *admin_routes(operations),
    ]


def make_app(
    generator: Generator,
    operations: Operations,
    config: ServerConfig,
    log: Log,
    *,
    unix_clock: UnixClock = time.time,
) -> ASGIApp:
    """The face as an ASGI app. Must be called inside `trio.run`.

    Args:
      generator: takes the asks.
      operations: what operators see and do.
      unix_clock: what time it is for people. Deadlines run on trio's clock.
    """
    routes = make_routes(generator, operations, config, unix_clock)
    router = Router(routes, redirect_slashes=False, default=no_such_route)
    return Guard(router, config, log)
