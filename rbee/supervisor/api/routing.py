"""One path and what each method does there."""

from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import unquote_to_bytes

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from rbee.errors import ErrorCode, RequestError
from rbee.supervisor.access.rights import check_right
from rbee.supervisor.api.answers import Answer
from rbee.supervisor.api.fields import Findings, is_field_name
from rbee.supervisor.api.visit import visit_of

Endpoint = Callable[[Request], Awaitable[ASGIApp]]


class ByMethod:
    """Gives a request to the endpoint of its method, if it may go there. HEAD goes where GET goes.

    Args:
      path: as the table of routes has it; for the log.
      is_quiet: a probe: not in the log, and answered whatever stands in its query.
    """

    def __init__(self, path: str, endpoints: Mapping[str, Endpoint], *, is_quiet: bool) -> None:
        self._path = path
        self._is_quiet = is_quiet
        self._endpoints = dict(endpoints)
        if "GET" in endpoints:
            self._endpoints["HEAD"] = endpoints["GET"]
        self.allow = ", ".join(sorted([*self._endpoints, "OPTIONS"]))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        visit = visit_of(scope)
        visit.route = self._path
        visit.is_quiet = self._is_quiet
        if scope["method"] == "OPTIONS":
            allow = (b"allow", self.allow.encode())
            await Answer(204, [allow], b"")(scope, receive, send)
            return
        endpoint = self._endpoints.get(scope["method"])
        if endpoint is None:
            visit.headers.append((b"allow", self.allow.encode()))
            message = f"this route takes {self.allow}"
            raise RequestError(ErrorCode.METHOD_NOT_ALLOWED, message)
        check_right(visit.principal, scope["method"], self._path)
        if scope["query_string"] and not self._is_quiet:
            raise _has_query(scope["query_string"])
        answer = await endpoint(Request(scope, receive, send))
        await answer(scope, receive, send)


def route(
    path: str,
    *,
    get: Endpoint | None = None,
    post: Endpoint | None = None,
    delete: Endpoint | None = None,
    is_quiet: bool = False,
) -> Route:
    """A route of the face."""
    given = {"GET": get, "POST": post, "DELETE": delete}
    endpoints = {method: each for method, each in given.items() if each is not None}
    return Route(path, ByMethod(path, endpoints, is_quiet=is_quiet))


def _has_query(query: bytes) -> RequestError:
    """No route takes a query; what stands in one is not dropped in silence."""
    found = Findings()
    for pair in query.split(b"&"):
        name = unquote_to_bytes(pair.partition(b"=")[0]).decode("latin-1")
        found.unsupported(name if is_field_name(name) else "(a query)")
    return found.as_error()


async def no_such_route(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """The app of all paths that are in no table."""
    raise RequestError(ErrorCode.NOT_FOUND, "there is no such route; docs/api.md lists them")
