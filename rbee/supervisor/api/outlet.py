"""The bytes of one stream on their way to the client, written without waiting.

Rule 1: `write` and `flush` are called from the link's receiver task. They never wait and never
        raise. What was written between two flushes leaves in one send.
Rule 2: what cannot leave yet is bounded. Over the bound the stream is broken as "slow_client":
        what was kept and what still comes is dropped, but for the words that end it.
"""

from collections.abc import Callable
from typing import Protocol

import trio


class DirectWriter(Protocol):
    """A way past the server's tasks to the socket, as the HTTP server offers it."""

    on_broken: Callable[[str], object] | None  # called once, with why nothing arrives any more

    def write_nowait(self, payload: bytes) -> None:
        """Send what the kernel takes, and park the rest, bounded."""
        ...

    async def drain(self) -> None:
        """Wait until the kernel has everything, or the client was given up."""
        ...


class Outlet:
    """Keeps bytes until the headers are out; then sends at once, or by the request's task.

    Args:
      kept_bytes_max: bytes that may wait here.
      on_broken: called once, at most, with the reason.
    """

    def __init__(self, kept_bytes_max: int, on_broken: Callable[[str], object]) -> None:
        self._kept_bytes_max = kept_bytes_max
        self._on_broken = on_broken
        self._writer: DirectWriter | None = None
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._is_broken = False
        self._has_ended = False
        self._news = trio.Event()

    def write(self, payload: bytes) -> None:
        if self._is_broken or self._has_ended or not payload:
            return
        self._kept.append(payload)
        self._kept_bytes += len(payload)
        if self._kept_bytes > self._kept_bytes_max:
            self._is_broken = True
            self._take()
            self._on_broken("slow_client")

    def flush(self) -> None:
        """Send what was written; without a writer it is the request's task that does."""
        if self._writer is not None:
            self._writer.write_nowait(self._take())
        else:
            self._news.set()

    def end(self, last_words: bytes) -> None:
        """Write what ends the stream; it is taken from a broken one as well."""
        self._has_ended = True
        self._kept.append(last_words)
        self.flush()

    def attach(self, writer: DirectWriter) -> None:
        """Send what was kept, and everything from now on, through ``writer``."""
        self._writer = writer
        writer.on_broken = self._on_broken
        self.flush()

    async def wait_kept(self) -> bytes:
        """Wait for bytes that the request's task shall send. Empty: there will be no more."""
        while not (payload := self._take()):
            if self._has_ended:
                return b""
            self._news = trio.Event()
            await self._news.wait()
        return payload

    def _take(self) -> bytes:
        payload = b"".join(self._kept)
        self._kept.clear()
        self._kept_bytes = 0
        return payload
