"""A link without sockets: what `transport.link.Link` is to the supervisor, and its other end.

It is lossy only where the real one is: it takes nothing while nobody is connected or too much
waits, and what a worker had not got rid of when it ended is lost, from the tail.
"""

from collections import deque
from collections.abc import Callable

import trio

from rbee.errors import LinkFullError

Frames = list[bytes]


class SimLink:
    """Both ends of one link.

    Args:
      from_worker_max: messages that may wait for the supervisor.
      to_worker_max: messages that may wait for the worker.
    """

    def __init__(self, from_worker_max: int, to_worker_max: int) -> None:
        self._from_worker_max = from_worker_max
        self._to_worker_max = to_worker_max
        self._from_worker: deque[Frames] = deque()
        self._to_worker: deque[Frames] = deque()
        self._news: trio.Event | None = None
        self._poke: Callable[[], None] | None = None  # the worker; None: nobody is there
        self.is_closed = False
        self.on_refused: Callable[[], None] = lambda: None  # too much waits for a worker

    # --- the supervisor's end

    @property
    def is_deaf(self) -> bool:
        """Whether the worker takes nothing now."""
        return self._poke is None or len(self._to_worker) >= self._to_worker_max

    def send(self, frames: Frames) -> None:
        if self.is_closed or self._poke is None:
            raise LinkFullError("the worker takes no messages")
        if len(self._to_worker) >= self._to_worker_max:
            self.on_refused()
            raise LinkFullError("the worker takes no messages: its queue is full")
        self._to_worker.append(frames)
        self._poke()

    async def receive(self) -> Frames:
        await trio.lowlevel.checkpoint_if_cancelled()
        while (frames := self.receive_nowait()) is None:
            assert self._news is None, "two tasks receive on one link"
            self._news = trio.Event()
            try:
                await self._news.wait()
            finally:
                self._news = None
        return frames

    def receive_nowait(self) -> Frames | None:
        if self.is_closed:
            raise trio.ClosedResourceError("this link is closed")
        if not self._from_worker:
            return None
        frames = self._from_worker.popleft()
        if self._poke is not None and len(self._from_worker) + 1 == self._from_worker_max:
            self._poke()  # there is room again
        return frames

    def close(self) -> None:
        self.is_closed = True
        if self._news is not None:
            self._news.set()

    # --- the worker's end

    def connect(self, poke: Callable[[], None]) -> None:
        self._poke = poke

    def disconnect(self) -> None:
        self._poke = None

    def put(self, frames: Frames) -> bool:
        """Say something. False: there is no room."""
        if len(self._from_worker) >= self._from_worker_max:
            return False
        self._from_worker.append(frames)
        if self._news is not None:
            self._news.set()
        return True

    def take(self) -> list[Frames]:
        taken = list(self._to_worker)
        self._to_worker.clear()
        return taken
