"""The generations that run, by the names that a client knows: for those who end them early."""

from typing import Protocol


class Cancellable(Protocol):
    def cancel(self) -> None:
        """End it; whoever waits for it is told."""
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

    def cancel(self, request_id: str) -> bool:
        """Cancel all of that name. False: there is none, or not any more."""
        named = list(self._by_id.get(request_id, ()))
        for request in named:
            request.cancel()
        return bool(named)
