"""Which request is at which worker, and which was cancelled there and is not let go yet.

Rule 1: a request counts as being at a worker until that has said its last word on it, also when
        it was cancelled: it may still be what crashes it, and holds its place.
"""

from collections.abc import Iterable

from rbee.supervisor.open_request import OpenRequest
from rbee.supervisor.worker import Worker


class AtWorkers:
    """Of all models. Written by `Dispatch` alone."""

    def __init__(self) -> None:
        self._sent: dict[int, OpenRequest] = {}  # by wire id
        self._at: dict[Worker, dict[int, OpenRequest]] = {}  # as above, in order of sending
        self._leaving: dict[Worker, list[OpenRequest]] = {}  # cancelled there

    def get(self, wire_id: int) -> OpenRequest | None:
        return self._sent.get(wire_id)

    def of_model(self, model: str) -> list[OpenRequest]:
        return [each for each in self._sent.values() if each.ask.model == model]

    def here(self, worker: Worker) -> Iterable[OpenRequest]:
        """What is to be answered by it, oldest sending first."""
        return self._at.get(worker, {}).values()

    def in_work(self, worker: Worker) -> Iterable[OpenRequest]:
        """The same, and what was cancelled there and may still be worked on."""
        return (*self.here(worker), *_still_there(worker, self._leaving.get(worker, ())))

    def add(self, request: OpenRequest, worker: Worker, wire_id: int) -> None:
        """It was sent."""
        request.worker, request.wire_id = worker, wire_id
        self._sent[wire_id] = request
        self._at.setdefault(worker, {})[wire_id] = request

    def take_off(self, request: OpenRequest) -> None:
        """The worker has said its last word on it."""
        assert request.worker is not None, "it is at no worker"
        del self._sent[request.wire_id]
        del self._at[request.worker][request.wire_id]
        request.worker = None

    def cancel(self, request: OpenRequest) -> None:
        """Take it off, and tell the worker to stop."""
        worker = request.worker
        self.take_off(request)
        assert worker is not None, "it was at one"
        self._leaving.setdefault(worker, []).append(request)
        worker.cancel(request.wire_id)

    def let_go(self, worker: Worker) -> list[OpenRequest]:
        """Forget what was cancelled there and is in work no more. Returns these."""
        leaving = self._leaving.get(worker)
        if not leaving:
            return []
        there = _still_there(worker, leaving)
        if len(there) == len(leaving):
            return []
        gone = [request for request in leaving if not worker.is_open(request.wire_id)]
        leaving[:] = there
        return gone

    def take_back(self, worker: Worker) -> tuple[list[OpenRequest], list[OpenRequest]]:
        """The worker is gone.

        Returns:
          The requests that were at it, oldest sending first; and those that had been cancelled,
          of which it had not said its last word.
        """
        mine = list(self._at.pop(worker, {}).values())
        for request in mine:
            del self._sent[request.wire_id]
            request.worker = None
        return mine, _still_there(worker, self._leaving.pop(worker, ()))


def _still_there(worker: Worker, leaving: Iterable[OpenRequest]) -> list[OpenRequest]:
    """Of those that were cancelled at a worker, whom it has not said its last word on."""
    return [request for request in leaving if worker.is_open(request.wire_id)]
