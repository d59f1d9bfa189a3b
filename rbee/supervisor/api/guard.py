"""What every HTTP request passes, in and out: the one place for what concerns all routes.

In: correlation id, Host, Origin. Out: headers of all answers, the one error shape, one line in
the log and, of what asked for tokens, in the audit log. Keys and metrics will join here. Both
faces call it, in this order: `arrive`, `admit`, then `refuse` or `note_bug` where there is no
answer, `dress` for whatever is answered, and `depart`. All of it is synchronous.

Rule: the log shows where a bug is, never the message of a foreign exception: those quote
      what clients sent.
"""

import traceback
from collections.abc import Iterable
from typing import Final

import trio

from rbee.audit import NO_AUDIT, Audit
from rbee.config import ServerConfig
from rbee.errors import ErrorCode, RequestError
from rbee.ids import new_correlation_id
from rbee.logs import Log
from rbee.supervisor.api.admission import (
    CORRELATION_HEADER,
    check_correlation_id,
    check_host,
    check_origin,
)
from rbee.supervisor.api.answers import Answer
from rbee.supervisor.api.audited import record_end
from rbee.supervisor.api.problems import problem_answer
from rbee.supervisor.api.visit import Headers, Visit

FRAMES_MAX: Final = 12  # of a traceback in the log

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OF_ALL_ANSWERS: Final = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))


class Guard:
    """What all requests of all faces pass."""

    def __init__(self, config: ServerConfig, log: Log, audit: Audit = NO_AUDIT) -> None:
        self._allowed_hosts = config.allowed_hosts
        self._log = log
        self._audit = audit

    def arrive(self, method: str, headers: Headers) -> Visit:
        """A request is here. Whatever becomes of it, `depart` is called once."""
        return Visit(method, headers, new_correlation_id(), trio.current_time())

    def admit(self, visit: Visit) -> None:
        """Check what is asked of every request, before its route is looked at.

        Raises:
          RequestError: it gets no further.
        """
        given = check_correlation_id(visit.values(CORRELATION_HEADER))
        visit.correlation_id = given or visit.correlation_id
        hosts = visit.values("host")
        check_host(hosts, self._allowed_hosts)
        check_origin(visit.values("origin"), hosts, self._allowed_hosts)

    def refuse(self, visit: Visit, error: RequestError) -> Answer:
        """The answer to a request that cannot be answered."""
        visit.outcome = error.code.value
        return problem_answer(error, visit.correlation_id)

    def note_bug(self, visit: Visit, bug: Exception) -> Answer:
        """Log what should not have happened; the answer, where none has begun."""
        visit.outcome = ErrorCode.INTERNAL_ERROR.value
        self._log.error(
            "request_failed", correlation_id=visit.correlation_id, route=visit.route,
            **_describe(bug),
        )  # fmt: skip
        error = RequestError(ErrorCode.INTERNAL_ERROR, "an internal error; the log has its cause")
        return problem_answer(error, visit.correlation_id)

    def dress(
        self, visit: Visit, status: int, headers: Iterable[tuple[bytes, bytes]]
    ) -> list[tuple[bytes, bytes]]:
        """The headers of an answer that begins now, with those that all answers have."""
        visit.status = status
        own = (b"x-correlation-id", visit.correlation_id.encode())
        return [*headers, own, *_OF_ALL_ANSWERS, *visit.headers]

    def depart(self, visit: Visit) -> None:
        """It is over: one line in the log, and one in the audit log if tokens were asked for."""
        outcome = visit.outcome or ("unanswered" if visit.status is None else "ok")
        duration_s = trio.current_time() - visit.arrived_s
        if visit.model:
            record_end(self._audit, visit, outcome, duration_s)
        tell = self._log.debug if visit.is_quiet else self._log.info
        tell(
            "request_done",
            correlation_id=visit.correlation_id,
            method=visit.method if visit.method in _METHODS else "other",
            route=visit.route,
            status=visit.status,
            outcome=outcome,
            duration_s=round(duration_s, 4),
            **visit.facts,
        )


def _describe(bug: BaseException) -> dict[str, str]:
    """Type and place of an exception; of a group, of the first in it."""
    while isinstance(bug, BaseExceptionGroup):
        bug = bug.exceptions[0]
    frames = traceback.extract_tb(bug.__traceback__)[-FRAMES_MAX:]
    places = (f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames)
    kind = type(bug)
    return {"error": f"{kind.__module__}.{kind.__qualname__}", "traceback": " > ".join(places)}
