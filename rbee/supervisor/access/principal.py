"""Who makes a request, as every part of the supervisor may know it. Pure."""

import enum
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
from msgspec import Meta


class Role(enum.StrEnum):
    """What somebody is to the server. Each may do what those before may."""

    VIEWER = "viewer"  # sees models and the state of the server
    USER = "user"  # asks for tokens
    OPERATOR = "operator"  # restarts workers, reads crash reports, cancels any request
    ADMIN = "admin"  # makes and revokes keys

    def includes(self, least: "Role") -> bool:
        """Whether it may do what ``least`` may."""
        return _RANKS[self] >= _RANKS[least]


_RANKS: Final = {role: rank for rank, role in enumerate(Role)}


class Priority(enum.StrEnum):
    """Whose turn comes first where requests wait, the first of these before the others."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


PER_MINUTE_MAX: Final = 1_000_000_000
CONCURRENT_MAX: Final = 1_000_000

PerMinute = Annotated[int, Meta(ge=1, le=PER_MINUTE_MAX)]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How much a principal may ask for, and how soon. None: no limit but the server's own."""

    requests_per_minute: PerMinute | None = None
    tokens_per_minute: PerMinute | None = None  # of prompts and answers together
    concurrent_requests: Annotated[int, Meta(ge=1, le=CONCURRENT_MAX)] | None = None
    priority: Priority = Priority.NORMAL

    @property
    def are_counted(self) -> bool:
        """Whether there is one that requests are counted against."""
        return (
            self.requests_per_minute is not None
            or self.tokens_per_minute is not None
            or self.concurrent_requests is not None
        )


NO_LIMITS: Final = Limits()


# The id of a JWT, as it is taken: it is written into the store, the audit log and answers.
JTI: Final = r"[!-~]{1,256}"

JWT_ACTOR: Final = "jwt:"
KEY_ACTOR: Final = "key:"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who makes a request, and what they may do.

    Args:
      actor: as in the audit log: "key:ID", "jwt:ISS/SUB-hash", "anonymous".
      models: those that may be asked for; empty: all.
      expires_unix_s: from then on it is refused, and what runs is ended. None: never.
      credential_id: of the key or token; what it limits and revokes goes by it. "": there is none.
    """

    actor: str
    role: Role
    models: frozenset[str] = frozenset()
    limits: Limits = NO_LIMITS
    expires_unix_s: float | None = None
    credential_id: str = ""

    def may_use(self, model: str) -> bool:
        return not self.models or model in self.models


# Whoever comes while no key is there: only from this machine, see `bind`.
ANYBODY: Final = Principal("anonymous", Role.ADMIN)
