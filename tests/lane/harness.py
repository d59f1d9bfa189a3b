"""A machine of the lane, and the HTTP server's reader beside it: both take bytes, both tell."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

import h11

from rbee.supervisor.http_server import HttpLimits
from rbee.supervisor.http_server.guard import find_fault
from rbee.supervisor.lane import HandOver, Machine, Refused, Request
from rbee.supervisor.lane.machine import Event

LIMITS: Final = HttpLimits()
BODY_BYTES_MAX: Final = 64 * 1024
DATE: Final = b"Sat, 21 Nov 2026 14:35:43 GMT"


def new_machine(*, hot: Iterable[tuple[str, bytes]] | None = None) -> Machine:
    """A machine for which all routes are hot, or those that are named."""
    routes = None if hot is None else frozenset(hot)
    return Machine(
        LIMITS,
        lambda method, target: routes is None or (method, target) in routes,
        BODY_BYTES_MAX,
        lambda: DATE,
    )


def drive(machine: Machine, parts: Iterable[bytes]) -> list[Event]:
    """What the machine tells of these parts, when each request is answered at once.

    What comes behind a hand-over goes with it.
    """
    events: list[Event] = []
    parts = iter(parts)
    for part in parts:
        machine.receive(part)
        while (event := machine.next_event()) is not None:
            if isinstance(event, HandOver):
                return [*events, HandOver(event.received + b"".join(parts))]
            events.append(event)
            if isinstance(event, Request):
                machine.answer(200, [], b"")
    return events


def request_of(event: Event | None) -> Request:
    assert isinstance(event, Request)
    return event


def refused_of(event: Event | None) -> Refused:
    assert isinstance(event, Refused)
    return event


def handed_over(event: Event | None) -> bytes:
    assert isinstance(event, HandOver)
    return event.received


@dataclass(frozen=True)
class Taken:
    """A request as the HTTP server reads it."""

    method: str
    target: bytes
    path: str
    headers: list[tuple[bytes, bytes]]
    body: bytes


@dataclass(frozen=True)
class Reading:
    """What the HTTP server makes of some bytes, when each request is answered at once."""

    taken: list[Taken]
    refused: int | None  # the status; None: it waits for more, or has ended the connection
    can_go_on: bool


class _Ended(Exception):
    """The connection ends, with this refusal or without one."""


def read_as_http_server(received: bytes) -> Reading:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=LIMITS.header_bytes_max)
    connection.receive_data(received)
    taken: list[Taken] = []
    refused = None
    try:
        while (request := _next_request(connection)) is not None:
            taken.append(request)
            connection.send(h11.Response(status_code=200, headers=[(b"content-length", b"0")]))
            connection.send(h11.EndOfMessage())
            if connection.their_state is not h11.DONE:
                return Reading(taken, None, can_go_on=False)
            connection.start_next_cycle()
    except h11.RemoteProtocolError as error:
        refused = error.error_status_hint
    except _Ended as ending:
        refused = ending.args[0]
    return Reading(taken, refused, can_go_on=refused is None)


def _next_request(connection: h11.Connection) -> Taken | None:
    fault = find_fault(connection.trailing_data[0], LIMITS)
    if fault is not None:
        raise _Ended(fault.status)
    request, body = None, b""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            assert request is not None
            path = unquote(request.target.partition(b"?")[0].decode("ascii"))
            method = request.method.decode("ascii")
            return Taken(method, request.target, path, list(request.headers), body)
        else:
            return None
