"""What an error looks like to a client: the one table of HTTP statuses, and the one shape.

Rule 1: every `ErrorCode` stands in `PROBLEMS`. docs/errors.md shows the same table.
Rule 2: the shape is OpenAI's with three members more: details, correlation_id and, where the
        error is of one field, param.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rbee.errors import ErrorCode, RequestError, Violation
from rbee.supervisor.api.answers import Answer, json_answer

# Told where nothing better is known. RFC 9110 wants whole seconds.
RETRY_AFTER_S_DEFAULT: Final = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """How one kind of error is told: the HTTP status, and OpenAI's ``error.type``."""

    status: int
    type: str


_INVALID: Final = "invalid_request_error"
_FORBIDDEN: Final = "permission_error"
_TOO_MUCH: Final = "rate_limit_error"
_SERVER: Final = "server_error"

PROBLEMS: Final[Mapping[ErrorCode, Problem]] = {
    ErrorCode.INVALID_REQUEST: Problem(400, _INVALID),
    ErrorCode.INVALID_JSON: Problem(400, _INVALID),
    ErrorCode.UNSUPPORTED_PARAMETER: Problem(400, _INVALID),
    ErrorCode.CONTEXT_LENGTH_EXCEEDED: Problem(400, _INVALID),
    ErrorCode.INVALID_API_KEY: Problem(401, "authentication_error"),
    ErrorCode.PERMISSION_DENIED: Problem(403, _FORBIDDEN),
    ErrorCode.FORBIDDEN_HOST: Problem(403, _FORBIDDEN),
    ErrorCode.FORBIDDEN_ORIGIN: Problem(403, _FORBIDDEN),
    ErrorCode.NOT_FOUND: Problem(404, _INVALID),
    ErrorCode.MODEL_NOT_FOUND: Problem(404, _INVALID),
    ErrorCode.WORKER_NOT_FOUND: Problem(404, _INVALID),
    ErrorCode.KEY_NOT_FOUND: Problem(404, _INVALID),
    ErrorCode.METHOD_NOT_ALLOWED: Problem(405, _INVALID),
    ErrorCode.BODY_TIMEOUT: Problem(408, _INVALID),
    ErrorCode.BODY_TOO_LARGE: Problem(413, _INVALID),
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: Problem(415, _INVALID),
    ErrorCode.REQUEST_QUARANTINED: Problem(422, _INVALID),
    ErrorCode.AUTHENTICATION_THROTTLED: Problem(429, _TOO_MUCH),
    ErrorCode.QUEUE_FULL: Problem(429, _TOO_MUCH),
    ErrorCode.RATE_LIMITED: Problem(429, _TOO_MUCH),
    # Nobody is left to read it: it stands in the log only.
    ErrorCode.SLOW_CLIENT: Problem(408, _INVALID),
    ErrorCode.INTERNAL_ERROR: Problem(500, _SERVER),
    ErrorCode.ENGINE_FAILED: Problem(500, _SERVER),
    ErrorCode.CANCELLED: Problem(410, _INVALID),  # not 409 or 5xx: clients would ask again
    ErrorCode.DRAINING: Problem(503, _SERVER),
    ErrorCode.MODEL_UNAVAILABLE: Problem(503, _SERVER),
    ErrorCode.WORKER_FAILED: Problem(503, _SERVER),
    ErrorCode.STORE_UNAVAILABLE: Problem(503, _SERVER),
    ErrorCode.JWT_UNAVAILABLE: Problem(503, _SERVER),
    ErrorCode.AUDIT_UNAVAILABLE: Problem(503, _SERVER),
    ErrorCode.DEADLINE_EXCEEDED: Problem(504, _SERVER),
}

RETRIABLE: Final = frozenset({429, 503})
UNAUTHORISED: Final = 401

# The rest of the body was not read, so nothing more can be read from this connection.
_UNREAD: Final = frozenset({ErrorCode.BODY_TIMEOUT, ErrorCode.BODY_TOO_LARGE})


def problem_object(error: RequestError, correlation_id: str) -> dict[str, object]:
    """The one error shape, ready for JSON. A field at fault stands in the details as well."""
    details = error.details
    if not details and error.param is not None:
        details = (Violation(error.param, error.message),)
    return {
        "error": {
            "message": error.message,
            "type": PROBLEMS[error.code].type,
            "code": error.code.value,
            "param": error.param,
            "details": [{"field": each.field, "problem": each.problem} for each in details],
            "correlation_id": correlation_id,
        }
    }


def retry_after(error: RequestError) -> int | None:
    """The value of ``Retry-After``: whole seconds, at least 1; None where it does not belong."""
    if PROBLEMS[error.code].status not in RETRIABLE:
        return None
    if error.retry_after_s is None or not math.isfinite(error.retry_after_s):
        return RETRY_AFTER_S_DEFAULT
    return max(RETRY_AFTER_S_DEFAULT, math.ceil(error.retry_after_s))


def problem_answer(error: RequestError, correlation_id: str) -> Answer:
    """The answer to a request that cannot be answered."""
    headers: list[tuple[bytes, bytes]] = []
    seconds = retry_after(error)
    if seconds is not None:
        headers.append((b"retry-after", b"%d" % seconds))
    if PROBLEMS[error.code].status == UNAUTHORISED:
        headers.append((b"www-authenticate", b"Bearer"))  # RFC 9110, 11.6.1
    if error.code in _UNREAD:
        headers.append((b"connection", b"close"))
    problem = problem_object(error, correlation_id)
    return json_answer(problem, PROBLEMS[error.code].status, headers)
