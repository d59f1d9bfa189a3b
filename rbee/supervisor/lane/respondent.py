"""How a connection of the lane comes by an answer: past the guard to the route, as any request.

Rule: each request that has come in departs past the guard exactly once, and not before the kernel
      has its answer, or nobody takes it.
"""

import contextlib
from abc import abstractmethod

from rbee.errors import RequestError
from rbee.supervisor.access.access import Pending
from rbee.supervisor.access.rights import check_right
from rbee.supervisor.api.generation import Generation
from rbee.supervisor.api.request_body import body_timeout, check_body_headers
from rbee.supervisor.api.visit import Visit, read_headers
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

    __slots__ = ("_address", "_generation")

    def __init__(
        self, shared: Shared, machine: Machine, client: ClientSocket, address: str
    ) -> None:
        super().__init__(shared, machine, client)
        self._address = address
        self._generation: Generation | None = None  # that runs for the request

    @abstractmethod
    def _hold(self, held: Held) -> None:
        """Have a request wait. Nothing else of this client is looked at."""

    @abstractmethod
    def _run(self, generation: Generation) -> None:
        """Start it, and watch over its time."""

    def _arrive(self, head: Head) -> Visit:
        return self._shared.guard.arrive(head.method, read_headers(head.headers), self._address)

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
        limits = route.limits(visit)
        check_body_headers(visit)
        if body is None:
            raise body_timeout(self._shared.body_timeout_s)
        self._run(route.open(route.read(body), limits, visit, self))

    def _note_broken_off(self) -> None:
        """The connection ends in the middle of a body: the request departs unanswered."""
        head, guard = self._machine.give_up_body(), self._shared.guard
        self._visit = self._arrive(head)
        with contextlib.suppress(RequestError):
            guard.admit(self._visit, head.path)
        self._visit.route = head.path

    def _depart(self) -> None:
        visit, self._visit, self._generation = self._visit, None, None
        if visit is not None:
            self._shared.guard.depart(visit)
