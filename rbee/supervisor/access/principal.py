"""Who makes a request, as every part of the supervisor may know it. Pure."""

import enum
from dataclasses import dataclass
from typing import Final

from rbee.rate_limits import NO_LIMITS, Limits


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

    @property
    def is_key(self) -> bool:
        """Whether it came with an API key."""
        return self.actor.startswith(KEY_ACTOR)

    def may_use(self, model: str) -> bool:
        return not self.models or model in self.models


# Whoever comes while no key is there: only from this machine, see `bind`.
ANYBODY: Final = Principal("anonymous", Role.ADMIN)
