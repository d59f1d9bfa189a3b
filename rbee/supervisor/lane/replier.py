"""How a connection of the lane tells an answer: its half of the `Reply` of a generation.

Rule: what goes wrong here ends the connection, and nothing else.
"""

from abc import ABC, abstractmethod
from typing import Final

from rbee.errors import ErrorCode, RequestError
from rbee.supervisor.api.answers import JSON_TYPE, Answer
from rbee.supervisor.api.asgi_reply import STREAM_HEADERS
from rbee.supervisor.api.events import failure_events
from rbee.supervisor.api.visit import Visit
from rbee.supervisor.lane.carrier import Shared
from rbee.supervisor.lane.client_socket import ClientSocket
from rbee.supervisor.lane.machine import Machine

BUG: Final = ErrorCode.INTERNAL_ERROR.value


class Replier(ABC):
    """What tells the answer of the request that a connection serves now."""

    __slots__ = ("_client", "_machine", "_shared", "_visit")

    def __init__(self, shared: Shared, machine: Machine, client: ClientSocket) -> None:
        self._shared = shared
        self._machine = machine
        self._client = client
        self._visit: Visit | None = None

    @abstractmethod
    def abort(self, outcome: str) -> None:
        """End the connection now: nobody hears what was not sent yet."""

    @abstractmethod
    def _send(self, data: bytes) -> None:
        """Send, or park what the kernel does not take."""

    @abstractmethod
    def _complete(self) -> None:
        """The answer is complete, as far as the connection is concerned."""

    @abstractmethod
    def _give_up(self) -> None:
        """The client reads too slowly."""

    def close_after(self) -> None:
        """The next answer that it begins is its last."""
        self._machine.close_after()

    # --- for the generation: see `Reply`

    def answer(self, body: bytes) -> None:
        try:
            self._answer(Answer(200, [JSON_TYPE], body))
        except Exception:
            self.abort(BUG)
            raise

    def write(self, payload: bytes) -> None:
        try:
            if payload:
                assert self._visit is not None
                chunk = self._machine.chunk
                if self._visit.status is None:
                    self._send(self._stream_head() + chunk(payload))
                else:
                    self._send(chunk(payload))
            if self._client.parked_bytes > self._shared.limits.parked_bytes_max:
                self._give_up()
        except Exception:
            self.abort(BUG)
            raise

    def end(self, last_words: bytes) -> None:
        try:
            machine = self._machine
            self._send(self._stream_head() + machine.chunk(last_words) + machine.finish())
            self._complete()
        except Exception:
            self.abort(BUG)
            raise

    def fail(self, error: RequestError) -> None:
        assert self._visit is not None
        if self._visit.status is not None:
            self.end(failure_events(error, self._visit.correlation_id))
            return
        try:
            self._answer(self._shared.guard.refuse(self._visit, error))
        except Exception:
            self.abort(BUG)
            raise

    # --- for the connection

    def _stream_head(self) -> bytes:
        """The head of the stream, if it has not left."""
        assert self._visit is not None
        if self._visit.status is not None:
            return b""
        return self._machine.begin(200, self._shared.guard.dress(self._visit, 200, STREAM_HEADERS))

    def _answer(self, answer: Answer) -> None:
        assert self._visit is not None
        headers = self._shared.guard.dress(self._visit, answer.status, answer.headers)
        self._send(self._machine.answer(answer.status, headers, answer.body))
        self._complete()
