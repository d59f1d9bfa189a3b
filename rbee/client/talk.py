"""One request and its answer, written once for all ways to wait.

What may have to wait is a generator of `Wait`s: whoever runs it does as they say, and sends back
whether there may be news. When it is closed instead, the request ends.
"""

import os
import time
from pathlib import Path
from typing import Final

import zmq

from rbee.client.errors import BadAnswerError, ClientError, ServerGoneError, TimedOutError
from rbee.client.link import Context, Link, Steps
from rbee.errors import RemoteProtocolError
from rbee.local_wire import FromServer, Head, Part, Request, decode_answer, encode_request

_CONNECT_S: Final = 2.0
_IDLE_LINKS_MAX: Final = 16

# What the server's own refusal of a request that is late may take to get here.
GRACE_S: Final = 5.0


class Links:
    """The connections of one client: one for each request that runs, and some that are idle."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._context: Context = zmq.Context(io_threads=1)
        self._pid = os.getpid()
        self._is_closed = False
        self._idle: list[Link] = []
        self._taken: set[Link] = set()

    def take(self) -> Steps[Link]:
        """A connection for one request. Raises: ClientError."""
        if self._pid != os.getpid():
            raise ClientError("this client was made before a fork: make another one in the child")
        if self._is_closed:
            raise ClientError("this client is closed")
        while (link := self._pop_idle()) is not None:
            self._taken.add(link)
            if link.is_connected:
                return link
            self.drop(link)
        link = Link(self._context, self._path)
        self._taken.add(link)
        try:
            yield from self._wait_connected(link)
        except BaseException:
            self.drop(link)
            raise
        return link

    def give_back(self, link: Link) -> None:
        """Its answer was whole: another request may have it."""
        if len(self._idle) < _IDLE_LINKS_MAX and not self._is_closed:
            self._taken.discard(link)
            self._idle.append(link)
        else:
            self.drop(link)

    def drop(self, link: Link) -> None:
        """Nobody wants the rest of its answer. The last one of a closed client ends the context."""
        link.close()
        self._taken.discard(link)
        if self._is_closed and not self._taken:
            self._context.destroy(linger=0)

    def close(self) -> None:
        """Close all of them. Who waits for one that is taken is woken, and finds it gone."""
        self._is_closed = True
        while (link := self._pop_idle()) is not None:
            link.close()
        for link in list(self._taken):
            link.cut()
        self._taken = {link for link in self._taken if not link.is_closed}
        if not self._taken:
            self._context.destroy(linger=0)

    def _wait_connected(self, link: Link) -> Steps[None]:
        until_s = time.monotonic() + _CONNECT_S
        while not link.is_connected:
            if not (yield from link.wait(until_s - time.monotonic())):
                raise ServerGoneError(f"no server answers at {self._path}, or it is full")

    def _pop_idle(self) -> Link | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None


class Talk:
    """One request. Whoever runs its steps calls `leave` when they raise.

    Args:
      timeout_s: what it may take in all; None: as long as the server lets it.
    """

    def __init__(
        self, links: Links, request: Request, body: bytes, timeout_s: float | None
    ) -> None:
        self._links = links
        self._frames = encode_request(request, body)
        self._until_s = None if timeout_s is None else time.monotonic() + timeout_s + GRACE_S
        self._link: Link | None = None

    def begin(self) -> Steps[Head]:
        """Send the request, and wait for the head of its answer.

        Raises:
          ServerGoneError, TimedOutError, BadAnswerError: it is over.
        """
        self._link = yield from self._links.take()
        self._link.send(self._frames)
        message = yield from self._receive(self._link)
        if isinstance(message, Head):
            return message
        raise BadAnswerError(f"expected a head, got {type(message).__name__}")

    def next_part(self) -> Steps[bytes | None]:
        """More of the body; None: it was all. Raises: as `begin` does."""
        if self._link is None:
            return None
        message = yield from self._receive(self._link)
        if isinstance(message, Part):
            return message.data
        if isinstance(message, Head):
            raise BadAnswerError("expected a part or the end, got a second head")
        link, self._link = self._link, None
        self._links.give_back(link)
        return None

    def rest(self) -> Steps[bytes]:
        """All of the body. Raises: as `begin` does."""
        parts: list[bytes] = []
        while (part := (yield from self.next_part())) is not None:
            parts.append(part)
        return b"".join(parts)

    def leave(self) -> None:
        """Nobody wants the rest: the server ends the request."""
        link, self._link = self._link, None
        if link is not None:
            self._links.drop(link)

    def _receive(self, link: Link) -> Steps[FromServer]:
        while (frames := link.receive()) is None:
            left_s = None if self._until_s is None else self._until_s - time.monotonic()
            if (left_s is not None and left_s <= 0) or not (yield from link.wait(left_s)):
                raise TimedOutError("no answer came in the time that this request had")
        try:
            return decode_answer(frames)
        except RemoteProtocolError as error:
            raise BadAnswerError(str(error)) from error
