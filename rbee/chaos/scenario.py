"""A scenario: the server, the load, the fault, and what must come of it. Values only."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Literal

from rbee.chaos.asks import AskNext
from rbee.chaos.clients import Load
from rbee.chaos.scene import Scene
from rbee.chaos.server import Server
from rbee.chaos.setting import Setting

# What an operator is promised: served again without him, after any single fault.
SERVED_AGAIN_S: Final = 10.0

# From SIGTERM to the end: what is open is answered, then the stop ladder.
END_S: Final = 12.0

Need = Literal["root", "cgroup v1", "freezer", "openssl"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What must come of the fault, beside that no request is lost and nothing stays behind."""

    # Errors in the log: each of `errors` at least once, of `errors_too` maybe, no other.
    errors: frozenset[str] = frozenset()
    errors_too: frozenset[str] = frozenset()
    successor_errors: frozenset[str] = frozenset()  # in the log of the next server, just these
    refusals: frozenset[str] = frozenset()  # documented codes that may stand for an answer
    may_cut: bool = False  # the server itself is ended: answers may break off, or never begin
    away_s: float = SERVED_AGAIN_S  # for so long no new request may be served
    healed_s: float = SERVED_AGAIN_S  # then each slot has a worker that serves
    restarts: tuple[int, int] = (0, 0)  # of the workers of "first" in all: at least, at most
    end_s: float = END_S
    exit_code: int = 0  # minus a signal's number where the drill ends it by one
    descriptors_more: int = 3  # of the server, from before the load to after it
    may_refuse_connections: bool = False  # for a while
    is_next_to_clean: bool = False  # what is left is ended by the next server


Check = Callable[[Server], Awaitable[None]]
"""Looks at a server that serves; a `DrillError` says what is wrong with it."""

Fault = Callable[[Scene], Awaitable[None]]
"""Makes one thing go wrong, and returns when it has. Its docstring says what."""


Ask = Callable[[str, random.Random], Awaitable[AskNext]]
"""What clients ask of the server with that URL, where it is more than the plain thing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One kind of fault."""

    name: str
    fault: Fault
    setting: Setting = field(default_factory=Setting)
    load: Load = field(default_factory=Load)
    asks: Ask | None = None
    models: tuple[str, ...] = ("first",)  # those that must be served before and after
    expected: Expected = field(default_factory=Expected)
    ends: Literal["after", "by fault"] = "after"  # after the fault was mended, by SIGTERM
    successor: Check | None = None  # a next server is started in its place, and looked at
    is_quick: bool = False  # one of those that the project's own tests run
    is_alone: bool = False  # it takes the whole machine: nothing else may be measured beside it
    needs: tuple[Need, ...] = ()
    limit_s: float = 90.0  # for the whole drill

    @property
    def about(self) -> str:
        """What happens, in one line."""
        return (self.fault.__doc__ or "").strip().partition("\n")[0]


@dataclass(frozen=True, slots=True)
class Absent:
    """A kind of fault that is known, and cannot be put to a server here."""

    name: str
    reason: str
