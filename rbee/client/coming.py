"""An answer that is coming, whichever way its reader waits for it."""

from collections import deque

from rbee.client.answers import Delta, read_events
from rbee.client.errors import AnswerError
from rbee.client.talk import Talk
from rbee.local_wire import Head


class Coming:
    """What `Stream` and `AsyncStream` have in common: what was received, and how it ends."""

    def __init__(self, talk: Talk, head: Head) -> None:
        self._talk = talk
        self._head = head
        self._told: deque[Delta | AnswerError] = deque()

    @property
    def correlation_id(self) -> str:
        return self._head.fields.get("x-correlation-id", "")

    def close(self) -> None:
        """Take no more: the server ends the request."""
        self._told.clear()
        self._talk.leave()

    def __del__(self) -> None:
        self.close()

    def _receive(self, part: bytes) -> None:
        self._told.extend(read_events(part, self._head))

    def _take(self) -> Delta | None:
        """The next delta that has come, if one has.

        Raises:
          AnswerError: the server has told an error in its place.
        """
        if not self._told:
            return None
        told = self._told.popleft()
        if isinstance(told, AnswerError):
            raise told
        return told
