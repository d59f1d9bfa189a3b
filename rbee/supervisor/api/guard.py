"""What every HTTP request passes, in and out: the one place for what concerns all routes.

In: correlation id, Host, Origin. Out: headers of all answers, the one error shape, one line in
the log. Keys, audit and metrics will join here.

Rule 1: whatever a route raises is answered here, and ends nothing but its request.
Rule 2: the log shows where a bug is, never the message of a foreign exception: those quote
        what clients sent.
"""

import traceback
from typing import Final

import trio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rbee.config import ServerConfig
from rbee.errors import ErrorCode, RequestError
from rbee.ids import new_correlation_id
from rbee.logs import Log
from rbee.supervisor.api.admission import (
    CORRELATION_HEADER,
    check_correlation_id,
    check_host,
    check_origin,
)
from rbee.supervisor.api.problems import problem_response
from rbee.supervisor.api.visit import ClientGoneError, Visit, header_values, put_visit

FRAMES_MAX: Final = 12  # of a traceback in the log

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Guard:
    """The ASGI app around all routes.

    Args:
      app: the routes. A `RequestError` that it raises before its answer has begun is told to
        the client.
    """

    def __init__(self, app: ASGIApp, config: ServerConfig, log: Log) -> None:
        self._app = app
        self._allowed_hosts = config.allowed_hosts
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        visit = Visit(new_correlation_id(), trio.current_time())
        put_visit(scope, visit)
        door = _Door(send, visit, is_head=scope["method"] == "HEAD")
        try:
            self._admit(scope, visit)
            await self._app(scope, receive, door.send)
        except RequestError as error:
            if visit.status is not None:
                raise
            visit.outcome = error.code.value
            response = problem_response(error, visit.correlation_id)
            await response(scope, receive, door.send)
        except ClientGoneError:
            visit.outcome = "client_gone"
        except trio.Cancelled:
            visit.outcome = visit.outcome or "shut_down"
            raise
        except Exception as bug:  # noqa: BLE001  # rule 1
            await self._answer_bug(bug, visit, scope, receive, door)
        finally:
            self._tell(scope, visit)

    def _admit(self, scope: Scope, visit: Visit) -> None:
        given = check_correlation_id(header_values(scope, CORRELATION_HEADER))
        visit.correlation_id = given or visit.correlation_id
        hosts = header_values(scope, "host")
        check_host(hosts, self._allowed_hosts)
        check_origin(header_values(scope, "origin"), hosts, self._allowed_hosts)

    async def _answer_bug(
        self, bug: Exception, visit: Visit, scope: Scope, receive: Receive, door: "_Door"
    ) -> None:
        visit.outcome = ErrorCode.INTERNAL_ERROR.value
        self._log.error(
            "request_failed", correlation_id=visit.correlation_id, route=visit.route,
            **_describe(bug),
        )  # fmt: skip
        if visit.status is not None:
            # The server sees an answer without an end, and breaks the connection off: the
            # client must not take it for a whole one.
            return
        error = RequestError(ErrorCode.INTERNAL_ERROR, "an internal error; the log has its cause")
        await problem_response(error, visit.correlation_id)(scope, receive, door.send)

    def _tell(self, scope: Scope, visit: Visit) -> None:
        tell = self._log.debug if visit.is_quiet else self._log.info
        tell(
            "request_done",
            correlation_id=visit.correlation_id,
            method=scope["method"] if scope["method"] in _METHODS else "other",
            route=visit.route,
            status=visit.status,
            outcome=visit.outcome or ("unanswered" if visit.status is None else "ok"),
            duration_s=round(trio.current_time() - visit.arrived_s, 4),
            **visit.facts,
        )


class _Door:
    """Every answer leaves through here."""

    def __init__(self, send: Send, visit: Visit, *, is_head: bool) -> None:
        self._send = send
        self._visit = visit
        self._is_head = is_head

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._visit.status = message["status"]
            headers = [
                *message.get("headers", ()),
                (b"x-correlation-id", self._visit.correlation_id.encode()),
                (b"cache-control", b"no-store"),
                (b"x-content-type-options", b"nosniff"),
                *self._visit.headers,
            ]
            message = {**message, "headers": headers}
        elif self._is_head and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await self._send(message)


def _describe(bug: BaseException) -> dict[str, str]:
    """Type and place of an exception; of a group, of the first in it."""
    while isinstance(bug, BaseExceptionGroup):
        bug = bug.exceptions[0]
    frames = traceback.extract_tb(bug.__traceback__)[-FRAMES_MAX:]
    places = (f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames)
    kind = type(bug)
    return {"error": f"{kind.__module__}.{kind.__qualname__}", "traceback": " > ".join(places)}
