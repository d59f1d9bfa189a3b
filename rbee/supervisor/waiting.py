"""Which request waits, and in which line: the common one, or that of suspects, who work apart."""

from collections.abc import Sequence
from typing import Final

from rbee.rate_limits import Priority
from rbee.supervisor.backlog import Backlog, Bound
from rbee.supervisor.open_request import OpenRequest


class Waiting:
    """Of all models, within one bound. Written by `Dispatch` alone.

    Args:
      requests_max: as `Bound` has them.
      tokens_max: likewise.
    """

    def __init__(self, requests_max: int, tokens_max: int) -> None:
        self.bound: Final = Bound(requests_max, tokens_max)
        self._common = Backlog(self.bound)
        self._apart = Backlog(self.bound)
        self._by_id: dict[int, OpenRequest] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, request: OpenRequest) -> bool:
        return request.request_id in self._by_id

    def count(self, model: str) -> int:
        return self._common.count(model) + self._apart.count(model)

    def has_any(self, model: str) -> bool:
        return self.count(model) > 0

    def has_suspects(self, model: str) -> bool:
        return self._apart.count(model) > 0

    def of_model(self, model: str) -> list[OpenRequest]:
        """Suspects first."""
        return self.suspects(model) + self._known(self._common.waiting(model))

    def suspects(self, model: str) -> list[OpenRequest]:
        """In the order of their turns: they are all of one class."""
        return self._known(self._apart.waiting(model))

    def first(self, model: str) -> OpenRequest | None:
        """Whose turn it is in the common line."""
        request_id = self._common.first(model)
        return None if request_id is None else self._by_id[request_id]

    def place(self, model: str, priority: Priority, *, is_suspect: bool) -> int:
        """Which turn one would have that came now, about; 1: the next. Suspects go first."""
        behind_suspects = 1 if is_suspect else self._common.place(model, priority)
        return self._apart.count(model) + behind_suspects

    def has_room(self, requests: Sequence[OpenRequest]) -> bool:
        """Whether these may wait, too."""
        return self.bound.has_room(len(requests), sum(each.tokens for each in requests))

    def add(self, request: OpenRequest, *, is_suspect: bool) -> None:
        # Suspects are few, and each is heard as soon as may be, whosever it is.
        priority = Priority.NORMAL if is_suspect else request.priority
        line = self._apart if is_suspect else self._common
        line.add(request.ask.model, request.request_id, request.tokens, priority)
        self._by_id[request.request_id] = request

    def add_first(self, request: OpenRequest, *, is_suspect: bool) -> None:
        """Put one at the head of its line that had its turn."""
        line = self._apart if is_suspect else self._common
        line.add_first(request.ask.model, request.request_id, request.tokens)
        self._by_id[request.request_id] = request

    def clear(self, suspect: OpenRequest) -> None:
        """It goes to the head of the common line."""
        self._apart.remove(suspect.ask.model, suspect.request_id)
        self._common.add_first(suspect.ask.model, suspect.request_id, suspect.tokens)

    def remove(self, request: OpenRequest, *, is_served: bool = False) -> None:
        """Take one out, if it waits; ``is_served``: as it has its turn."""
        if self._by_id.pop(request.request_id, None) is not None:
            model = request.ask.model
            if not self._common.remove(model, request.request_id, is_served=is_served):
                self._apart.remove(model, request.request_id)

    def _known(self, ids: Sequence[int]) -> list[OpenRequest]:
        return [self._by_id[request_id] for request_id in ids]
