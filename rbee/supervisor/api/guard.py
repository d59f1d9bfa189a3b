"""What every HTTP request passes, in and out: the one place for what concerns all routes.

In: correlation id, Host, Origin, and who it is. Out: headers of all answers, the one error shape,
one line in the log and, of what asked for tokens, in the audit log. Both faces call it, in this
order: `arrive`, `admit`, `conclude` where `admit` left something pending, then `refuse` or
`note_bug` where there is no answer, `dress` for whatever is answered, and `depart`. All of it is
synchronous. What somebody may do on a route is checked there, by the one table of `rights`.

Rule 1: the log shows where a bug is, never the message of a foreign exception: those quote
        what clients sent.
Rule 2: who is not known gets to no route, known or not, but to those that are open to all.
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
from rbee.metrics import Metrics
from rbee.supervisor.access.access import Access, DeniedError, Pending
from rbee.supervisor.access.principal import ANYBODY, Principal
from rbee.supervisor.access.rights import OPEN_PATHS
from rbee.supervisor.api.admission import (
    CORRELATION_HEADER,
    check_correlation_id,
    check_host,
    check_origin,
)
from rbee.supervisor.api.answers import Answer
from rbee.supervisor.api.audited import record_end
from rbee.supervisor.api.cors import granting_headers, is_preflight
from rbee.supervisor.api.problems import problem_answer
from rbee.supervisor.api.visit import Headers, Visit

FRAMES_MAX: Final = 12  # of a traceback in the log

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OF_ALL_ANSWERS: Final = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))


class Guard:
    """What all requests of all faces pass."""

    def __init__(
        self,
        config: ServerConfig,
        log: Log,
        audit: Audit = NO_AUDIT,
        access: Access | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._allowed_hosts = config.allowed_hosts
        self._allowed_origins = frozenset(config.allowed_origins)
        self._access = access
        self._log = log
        self._audit = audit
        self._metrics = metrics or Metrics()

    def arrive(self, method: str, headers: Headers, address: str) -> Visit:
        """A request is here. Whatever becomes of it, `depart` is called once.

        Args:
          address: the client's, without the port; "" where it has none.
        """
        return Visit(method, headers, new_correlation_id(), trio.current_time(), address)

    def admit(self, visit: Visit, path: str) -> Pending | None:
        """Check what is asked of every request, before its route is looked at.

        Args:
          path: decoded, without the query.
        Returns:
          None: go on. Else call `conclude` once that is done.

        Raises:
          RequestError: it gets no further.
        """
        given = check_correlation_id(visit.values(CORRELATION_HEADER))
        visit.correlation_id = given or visit.correlation_id
        self._check_source(visit)
        if path in OPEN_PATHS or visit.is_preflight:
            return None
        found: Principal | Pending = ANYBODY
        if self._access is not None:
            found = self._access.identify(
                visit.values("authorization"), visit.values("x-api-key"), visit.address
            )
        if isinstance(found, Pending):
            return found
        visit.principal = found
        return None

    def conclude(self, visit: Visit, pending: Pending) -> None:
        """It is known now who makes the request; or it will not be found out.

        Raises:
          RequestError: it gets no further.
        """
        visit.principal = pending.principal()

    def refuse(self, visit: Visit, error: RequestError) -> Answer:
        """The answer to a request that cannot be answered."""
        visit.outcome = error.code.value
        if isinstance(error, DeniedError):
            visit.denial = error
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
        """It is over: it is counted, and has one line in the log, and one in the audit log if
        tokens were asked for.
        """
        outcome = visit.outcome or ("unanswered" if visit.status is None else "ok")
        duration_s = trio.current_time() - visit.arrived_s
        method = visit.method if visit.method in _METHODS else "other"
        self._metrics.request_ended(method, visit.route, visit.status, duration_s)
        if visit.denial is not None:
            self._metrics.denied(visit.denial.reason)
        if visit.model:
            self._metrics.answer_ended(visit.route, visit.model, outcome)
            record_end(self._audit, visit, outcome, duration_s)
        if self._access is not None:
            self._note_who(self._access, visit)
        tell = self._log.debug if visit.is_quiet else self._log.info
        tell(
            "request_done",
            correlation_id=visit.correlation_id,
            method=method,
            route=visit.route,
            status=visit.status,
            outcome=outcome,
            duration_s=round(duration_s, 4),
            **visit.facts,
        )

    def _check_source(self, visit: Visit) -> None:
        """Whether the request may come from where it comes from."""
        hosts = visit.values("host")
        is_open = self._access is None or self._access.is_open
        any_name = not is_open and not self._allowed_hosts
        check_host(hosts, self._allowed_hosts, any_name=any_name)
        origin = check_origin(
            visit.values("origin"), hosts, self._allowed_hosts, self._allowed_origins,
            any_name=any_name,
        )  # fmt: skip
        if origin:
            visit.headers += granting_headers(origin)
            visit.is_preflight = is_preflight(visit)

    def _note_who(self, access: Access, visit: Visit) -> None:
        if visit.denial is not None:
            access.note_denial(visit.denial, visit.route, visit.address)
        elif visit.principal is not None:
            access.note_use(visit.principal, visit.route, visit.address)


def _describe(bug: BaseException) -> dict[str, str]:
    """Type and place of an exception; of a group, of the first in it."""
    while isinstance(bug, BaseExceptionGroup):
        bug = bug.exceptions[0]
    frames = traceback.extract_tb(bug.__traceback__)[-FRAMES_MAX:]
    places = (f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames)
    kind = type(bug)
    return {"error": f"{kind.__module__}.{kind.__qualname__}", "traceback": " > ".join(places)}
