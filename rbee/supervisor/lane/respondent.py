"""How a connection of the lane comes by an answer: past the guard to the route, as any request.

Rule: each request that has come in departs past the guard exactly once, and not before the kernel
      has its answer, or nobody takes it.
"""

import contextlib
import math
from abc import abstractmethod

import trio

from rbee.errors import RequestError
from rbee.supervisor.access.access import Pending
from rbee.supervisor.access.rights import check_right
from rbee.supervisor.api.generation import Generation, TimeLimits
from rbee.supervisor.api.openai import tell_deadline
from rbee.supervisor.api.request_body import check_body_headers, late_body
from rbee.supervisor.api.visit import Visit, read_headers
from rbee.supervisor.http_server.guard import BODY_CUT_SHORT
from rbee.supervisor.lane.carrier import Shared
from rbee.supervisor.lane.client_socket import ClientSocket
from rbee.supervisor.lane.head import Head
from rbee.supervisor.lane.held import Held
from rbee.supervisor.lane.machine import Machine
from rbee.supervisor.lane.replier import BUG, Replier


class Respondent(Replier):
    """What answers the requests of a connection, one after the other.

    Args:
      address: the client's, without the port; "" where it has none.
    """

    __slots__ = ("_address", "_generation", "_limits")

    def __init__(
        self, shared: Shared, machine: Machine, client: ClientSocket, address: str
    ) -> None:
        super().__init__(shared, machine, client)
        self._address = address
        self._generation: Generation | None = None  # that runs for the request
        self._limits: TimeLimits | None = None  # of one whose head came before its body

    @property
    @abstractmethod
    def _is_closing(self) -> bool:
        """Whether the server closes, and what is still to come has little time."""

    @abstractmethod
    def _hold(self, held: Held) -> None:
        """Have a request wait. Nothing else of this client is looked at."""

    @abstractmethod
    def _run(self, generation: Generation) -> None:
        """Start it, and watch over its time."""

    def _arrive(self, head: Head) -> None:
        """The head of a request is here, unless it was already."""
        if self._visit is None:
            headers = read_headers(head.headers)
            self._visit = self._shared.guard.arrive(head.method, headers, self._address)

    def _expect_body(self, head: Head) -> float:
        """The head of a request is here, and its body is not.

        Returns:
          Its deadline. Infinite, too, where it is malformed: that is told in its turn.
        """
        self._arrive(head)
        assert self._visit is not None
        with contextlib.suppress(RequestError):
            self._limits = self._shared.hot.posts[head.path].limits(self._visit)
        return self._limits.deadline_s if self._limits is not None else math.inf

    def _respond(self, head: Head, body: bytes | None, verified: Pending | None) -> None:
        guard, visit = self._shared.guard, self._visit
        assert visit is not None
        try:
            if verified is not None:
                guard.conclude(visit, verified)
            elif (pending := guard.admit(visit, head.path)) is not None:
                self._hold(Held(head, body, pending))
                return
            check_right(visit.principal, head.method, head.path)
            if head.method == "GET":
                self._get(head.path, visit)
            else:
                self._generate(head.path, visit, body)
        except RequestError as error:
            self._answer(guard.refuse(visit, error))
        except Exception as bug:  # noqa: BLE001  # it ends this request, and no other
            if self._generation is not None:
                self._generation.abandon(BUG)
            self._answer(guard.note_bug(visit, bug))

    def _get(self, path: str, visit: Visit) -> None:
        hot = self._shared.hot.gets[path]
        visit.route, visit.is_quiet = path, hot.is_quiet
        self._answer(hot.answer(visit))

    def _generate(self, path: str, visit: Visit, body: bytes | None) -> None:
        route = self._shared.hot.posts[path]
        visit.route = path
        limits = self._limits or route.limits(visit)
        tell_deadline(visit, limits)
        check_body_headers(visit)
        now_s = trio.current_time()
        if body is None and self._is_closing and now_s < limits.deadline_s:
            raise RequestError(BODY_CUT_SHORT.code, BODY_CUT_SHORT.message)
        if body is None or now_s >= limits.deadline_s:
            raise late_body(self._shared.body_timeout_s, limits.deadline_s, now_s)
        self._run(route.open(route.read(body), limits, visit, self))

    def _note_broken_off(self, head: Head) -> None:
        """The connection ends before a request had its turn: it departs unanswered."""
        visit = self._visit
        assert visit is not None
        with contextlib.suppress(RequestError):
            self._shared.guard.admit(visit, head.path)
        visit.route = head.path

    def _depart(self) -> None:
        visit, self._visit, self._generation = self._visit, None, None
        self._limits = None
        if visit is not None:
            self._shared.guard.depart(visit)
