"""Finds out whether a key is the one of a hash: one at a time, in one thread.

Rule 1: whoever tries keys can take one core at most, and makes at most `QUEUE_MAX` wait.
Rule 2: who comes with the same key meanwhile waits for the same answer.
Rule 3: every `Verification` that was handed out is finished, also where no thread can be had.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

import trio

from rbee.supervisor.access.hashing import fits
from rbee.threads import thread_refusals

QUEUE_MAX: Final = 8

# As long as anybody waits for it. With a full queue on a busy machine it is some seconds.
VERIFICATION_TIMEOUT_S: Final = 30.0

# What one more in the queue may take, as told to who finds it full.
VERIFICATION_S: Final = 0.05


class Verification:
    """One key that is being looked at. Several requests may wait for it."""

    def __init__(self, digest: bytes, text: str, hashed: str) -> None:
        self.digest = digest
        self.text = text
        self.hashed = hashed
        self.is_good: bool | None = None  # None: not known, or not to be found out
        self.is_done = False
        self.is_claimed = False  # somebody acts on what is found out
        self._waiting: list[Callable[[], None]] = []

    def call_when_done(self, callback: Callable[[], None]) -> None:
        """Call once it is done, from a task of the supervisor: soon, but never at once."""
        assert not self.is_done
        self._waiting.append(callback)

    def finish(self, is_good: bool | None) -> None:
        self.is_good, self.is_done = is_good, True
        self.text = ""
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback()


class Verifier:
    """The queue and its one thread. `run` must run for anything to be verified."""

    def __init__(self, fits: Callable[[str, str], bool] = fits) -> None:
        self._fits = fits
        self._queue: deque[Verification] = deque()
        self._open: dict[bytes, Verification] = {}
        self._news = trio.Event()

    def verify(self, digest: bytes, text: str, hashed: str) -> Verification | None:
        """Have a key looked at. None: too many wait already.

        Args:
          digest: stands for the key: who comes with the same one joins.
        """
        found = self._open.get(digest)
        if found is not None:
            return found
        if len(self._queue) >= QUEUE_MAX:
            return None
        verification = self._open[digest] = Verification(digest, text, hashed)
        self._queue.append(verification)
        self._news.set()
        return verification

    async def run(self) -> None:
        """Work until cancelled."""
        limiter = trio.CapacityLimiter(1)
        while True:
            while not self._queue:
                self._news = trio.Event()
                await self._news.wait()
            verification = self._queue.popleft()
            is_good: bool | None = None
            try:
                with thread_refusals():
                    is_good = await trio.to_thread.run_sync(
                        self._fits, verification.text, verification.hashed, limiter=limiter
                    )
            except (OSError, MemoryError):
                is_good = None  # no thread, or no 19 MiB: another try may succeed
            finally:
                del self._open[verification.digest]
                verification.finish(is_good)
