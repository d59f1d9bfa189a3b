"""The generations that run, by the names that a client knows: for those who end them early."""

from collections.abc import Callable
from typing import Protocol

from rbee.errors import RequestError
from rbee.supervisor.access.principal import Principal, Role


class Cancellable(Protocol):
    @property
    def principal(self) -> Principal | None:
        """Whose it is."""
        ...

    def cancel(self) -> None:
        """End it; whoever waits for it is told."""
        ...

    def fail(self, error: RequestError) -> None:
        """End it, and tell why."""
        ...


class OpenRequests:
    """Who can be cancelled. An id names several where a client used it more than once."""

    def __init__(self) -> None:
        self._by_id: dict[str, list[Cancellable]] = {}

    def add(self, request_id: str, request: Cancellable) -> None:
        self._by_id.setdefault(request_id, []).append(request)

    def discard(self, request_id: str, request: Cancellable) -> None:
        """Take one out; ids that are not there are ignored."""
        named = self._by_id.get(request_id, [])
        if request in named:
            named.remove(request)
        if not named:
            self._by_id.pop(request_id, None)

    def cancel(self, request_id: str, by: Principal) -> bool:
        """Cancel all of that name that somebody may cancel: its own; of an operator, any.

        Returns:
          False: there is none, or not any more, or it is another's: one cannot tell which.
        """
        is_any = by.role.includes(Role.OPERATOR)
        named = [
            request
            for request in self._by_id.get(request_id, ())
            if is_any or (request.principal is not None and request.principal.actor == by.actor)
        ]
        for request in named:
            request.cancel()
        return bool(named)

    def end_those_of(self, fault: Callable[[Principal], RequestError | None]) -> None:
        """End what runs for some principals.

        Args:
          fault: why what a principal runs is to end; None: it is not.
        """
        faults: dict[int, RequestError | None] = {}
        ended: list[tuple[Cancellable, RequestError]] = []
        for named in self._by_id.values():
            for request in named:
                principal = request.principal
                if principal is None:
                    continue
                if id(principal) not in faults:  # many requests are of one principal
                    faults[id(principal)] = fault(principal)
                error = faults[id(principal)]
                if error is not None:
                    ended.append((request, error))
        for request, error in ended:
            request.fail(error)  # a second time it does nothing
