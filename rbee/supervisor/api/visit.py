"""One HTTP request on its way through a face: what all parts of the face may know of it.

Written by the guard and by the route that answers; read for the one line in the log.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from starlette.types import Scope

from rbee.supervisor.access.access import DeniedError
from rbee.supervisor.access.principal import Principal

_KEY: Final = "rbee.visit"

Headers = Mapping[str, list[str]]
"""The headers of a request: by name in lower case, all values in order."""


class ClientGoneError(Exception):
    """The client hung up before its request was whole. Caught by the face; never answered."""


@dataclass(slots=True)
class Visit:
    """What is known of one HTTP request."""

    method: str
    request_headers: Headers
    correlation_id: str
    arrived_s: float  # on the clock of deadlines
    address: str = ""  # the client's, without the port; "" where it has none
    principal: Principal | None = None  # who makes it; None: not known, or nobody asks
    denial: DeniedError | None = None  # why they were not let in
    is_preflight: bool = False  # a browser asks whether a page of an allowed origin may ask
    route: str = "none"  # the path as the table of routes has it, never as the client sent it
    model: str = ""  # that is asked for tokens, once the request was read
    is_quiet: bool = False  # a probe that would fill the log
    status: int | None = None  # of the answer, once it has begun
    outcome: str = ""  # how it ended, where the status does not say it
    facts: dict[str, Any] = field(default_factory=dict)  # for the log: numbers and names, no text
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)  # more for the answer

    def values(self, name: str) -> list[str]:
        """All values of a header of the request, in order."""
        return self.request_headers.get(name.lower(), [])

    def note_outcome(self, outcome: str) -> None:
        """Only the first counts."""
        self.outcome = self.outcome or outcome


def read_headers(pairs: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Headers as they come from the wire, names in lower case."""
    headers: dict[str, list[str]] = {}
    for name, value in pairs:
        headers.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
    return headers


def put_visit(scope: Scope, visit: Visit) -> None:
    scope[_KEY] = visit


def visit_of(scope: Scope) -> Visit:
    return cast(Visit, scope[_KEY])
