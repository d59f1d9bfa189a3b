"""Cross-origin requests of web pages that the operator has listed. Pure.

Rule: without `server.allowed_origins` there is none of this, and browsers keep pages out. There is
      no wildcard: a listed origin is named in the answer, and cookies are never asked for.
Source: Fetch Standard, section 3.2 (CORS protocol).
"""

from typing import Final

from rbee.supervisor.api.answers import Answer
from rbee.supervisor.api.visit import Visit

# How long a browser may remember the answer to a preflight.
_MAX_AGE_S: Final = 600

_METHODS: Final = b"GET, POST, DELETE"
# The star stands for all but Authorization. OpenAI's client for pages sends a dozen of its own.
_REQUEST_HEADERS: Final = b"authorization, *"
_ANSWER_HEADERS: Final = (
    b"x-correlation-id, x-request-deadline, x-rbee-failovers, retry-after,"
    b" x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests,"
    b" x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens"
)


def granting_headers(origin: str) -> list[tuple[bytes, bytes]]:
    """What tells a browser that a page of that origin may read the answer."""
    return [
        (b"access-control-allow-origin", origin.encode("ascii")),
        (b"access-control-expose-headers", _ANSWER_HEADERS),
        (b"vary", b"origin"),
    ]


def is_preflight(visit: Visit) -> bool:
    """Whether a browser asks, before a page's own request, if it may make it."""
    return visit.method == "OPTIONS" and bool(visit.values("access-control-request-method"))


def preflight_answer() -> Answer:
    """What a page of a listed origin may send. It says nothing of what is here."""
    headers = [
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-allow-headers", _REQUEST_HEADERS),
        (b"access-control-max-age", b"%d" % _MAX_AGE_S),
    ]
    return Answer(204, headers, b"")
