"""The face as an ASGI app: takes each request past the guard to its route, and back.

Rule: whatever a route raises is answered here, and ends nothing but its request.
"""

from typing import Final, Protocol, cast

import trio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rbee.errors import RequestError
from rbee.supervisor.access.access import Pending
from rbee.supervisor.access.verifier import VERIFICATION_TIMEOUT_S
from rbee.supervisor.api.cors import preflight_answer
from rbee.supervisor.api.guard import Guard
from rbee.supervisor.api.visit import ClientGoneError, Visit, put_visit, read_headers

# The extension by which a server says which face it is, for the log; none: HTTP.
FACE: Final = "rbee.face"

# The extension by which a server says whether what it is given reaches the client.
DELIVERY: Final = "rbee.delivery"

# The member of a disconnect by which a server says what of the body is wrong, for us to answer.
FAULT: Final = "rbee.fault"

_OUTCOMES: Final = {"slow_client": "slow_client", "disconnected": "client_gone"}


class Delivery(Protocol):
    """How it stands with what a client is sent."""

    @property
    def broken(self) -> str | None:
        """Why nothing reaches the client any more; None while all is well."""
        ...


def loss_of(scope: Scope) -> str:
    """The outcome of a request whose answer gets lost; "" as long as it arrives."""
    delivery = cast(Delivery | None, (scope.get("extensions") or {}).get(DELIVERY))
    reason = delivery.broken if delivery is not None else None
    return _OUTCOMES[reason] if reason is not None else ""


class AsgiFace:
    """The ASGI app around all routes.

    Args:
      app: the routes. A `RequestError` that it raises before its answer has begun is told to
        the client.
    """

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app = app
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        guard = self._guard
        client = scope.get("client")
        address = client[0] if client else ""
        visit = guard.arrive(scope["method"], read_headers(scope["headers"]), address)
        if face := (scope.get("extensions") or {}).get(FACE):
            visit.facts["face"] = face
        put_visit(scope, visit)
        door = _Door(scope, send, guard, visit)
        try:
            pending = guard.admit(visit, scope["path"])
            if pending is not None:
                await _wait_done(pending)
                guard.conclude(visit, pending)
            app = preflight_answer() if visit.is_preflight else self._app
            await app(scope, receive, door.send)
        except RequestError as error:
            if visit.status is not None:
                raise
            await guard.refuse(visit, error)(scope, receive, door.send)
        except ClientGoneError:
            visit.outcome = "client_gone"
        except trio.Cancelled:
            visit.note_outcome("shut_down")
            raise
        except Exception as bug:  # noqa: BLE001
            answer = guard.note_bug(visit, bug)
            if visit.status is None:
                await answer(scope, receive, door.send)
            # Else the server sees an answer without an end, and breaks the connection off: the
            # client must not take it for a whole one.
        finally:
            guard.depart(visit)


async def _wait_done(pending: Pending) -> None:
    """Wait until it is known who makes a request, or will not be in time."""
    done = trio.Event()
    pending.verification.call_when_done(done.set)
    with trio.move_on_after(VERIFICATION_TIMEOUT_S):
        await done.wait()


class _Door:
    """Every answer leaves through here."""

    def __init__(self, scope: Scope, send: Send, guard: Guard, visit: Visit) -> None:
        self._scope = scope
        self._send = send
        self._guard = guard
        self._visit = visit

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            given = message.get("headers", ())
            headers = self._guard.dress(self._visit, message["status"], given)
            message = {**message, "headers": headers}
        elif self._visit.method == "HEAD" and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await self._send(message)  # and wait until the kernel has it, or nobody takes it
        if outcome := loss_of(self._scope):
            self._visit.note_outcome(outcome)


async def receive_part(receive: Receive) -> Message:
    """The next part of the body.

    Raises:
      ClientGoneError: there will be none.
      RequestError: likewise, and the client is still there to be told why.
    """
    message = await receive()
    if message["type"] == "http.disconnect":
        fault: RequestError | None = message.get(FAULT)
        if fault is None:
            raise ClientGoneError
        # One of our own: what is raised holds the frames that it passes, and the body in them.
        raise RequestError(fault.code, fault.message)
    return message
