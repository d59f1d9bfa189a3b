"""One HTTP request on its way through the face: what all parts of the face may know of it.

Written by the guard and by the route that answers; read for the one line in the log.
"""

from dataclasses import dataclass, field
from typing import Any, Final, cast

from starlette.types import Message, Receive, Scope

_KEY: Final = "rbee.visit"


class ClientGoneError(Exception):
    """The client hung up before its request was whole. Caught by the guard; never answered."""


@dataclass(slots=True)
class Visit:
    """What is known of one HTTP request."""

    correlation_id: str
    arrived_s: float  # on the clock of deadlines
    route: str = "none"  # the path as the table of routes has it, never as the client sent it
    is_quiet: bool = False  # a probe that would fill the log
    status: int | None = None  # of the answer, once it has begun
    outcome: str = ""  # how it ended, where the status does not say it
    facts: dict[str, Any] = field(default_factory=dict)  # for the log: numbers and names, no text
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)  # more for the answer


def put_visit(scope: Scope, visit: Visit) -> None:
    scope[_KEY] = visit


def visit_of(scope: Scope) -> Visit:
    return cast(Visit, scope[_KEY])


def header_values(scope: Scope, name: str) -> list[str]:
    """All values of a header, in order."""
    wanted = name.lower().encode()
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == wanted]


async def receive_part(receive: Receive) -> Message:
    """The next part of the body.

    Raises:
      ClientGoneError: there will be none.
    """
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGoneError
    return message
