"""How much somebody may ask for, and how soon: the limits of a key, or of who bears a JWT. Pure."""

import enum
from typing import Annotated, Final

import msgspec
from msgspec import Meta


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
