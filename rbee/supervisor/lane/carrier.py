"""What a connection of the lane sees of the lane."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from rbee.logs import Log
from rbee.supervisor.api.guard import Guard
from rbee.supervisor.api.hot import HotRoutes
from rbee.supervisor.http_server import HttpLimits

C_contra = TypeVar("C_contra", contravariant=True)  # a connection, which knows its carrier


@dataclass(frozen=True, slots=True)
class Shared:
    """What all connections of a lane have in common."""

    hot: HotRoutes
    guard: Guard
    limits: HttpLimits
    body_bytes_max: int  # larger bodies are not for the lane
    body_timeout_s: float
    date: Callable[[], bytes]
    log: Log


class Carrier(Protocol[C_contra]):
    """What a connection needs of the loop that carries it."""

    shared: Shared
    is_closing: bool  # what has not begun to come is not waited for

    def watch(self, connection: C_contra) -> None:
        """Its interest in the socket, or its deadline, has changed."""
        ...

    def call_soon(self, connection: C_contra) -> None:
        """Call its `proceed` at the next turn."""
        ...

    def call_in_turn(self, connection: C_contra) -> None:
        """Call its `take_turn` once all that has come in was looked at; the first to ask first."""
        ...

    def hand_over(self, connection: C_contra, received: bytes) -> None:
        """The HTTP server is to carry on with its socket."""
        ...

    def forget(self, connection: C_contra) -> None:
        """Its socket is about to be closed."""
        ...
