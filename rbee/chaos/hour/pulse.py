"""Whether the server is there: ``GET /health/live`` at a steady pace, from begin to end.

Rule 1: no look waits for the one before it, so that one slow answer hides no other.
"""

import time
from typing import Final

import httpx2
import trio

from rbee.chaos.clients import OpenClient

EVERY_S: Final = 0.5

# Who restarts a server that does not answer gives it longer than this: docs/systemd.md.
TIMEOUT_S: Final = 10.0

_MISSED_TOLD_MAX: Final = 20


class Pulse:
    """The figures are those of the looks that are over."""

    def __init__(self, url: str, open_client: OpenClient) -> None:
        self.answered = 0
        self.missed = 0
        self.slowest_s = 0.0
        self.told: list[str] = []  # what came instead, of the first that were missed
        self._url = url + "/health/live"
        self._open_client = open_client

    async def run(self, is_over: trio.Event) -> None:
        """Returns once ``is_over`` is set and the last look has its answer."""
        async with self._open_client(TIMEOUT_S) as client, trio.open_nursery() as nursery:
            while not is_over.is_set():
                nursery.start_soon(self._look, client)
                with trio.move_on_after(EVERY_S):
                    await is_over.wait()

    async def _look(self, client: httpx2.AsyncClient) -> None:
        began_s = time.monotonic()
        try:
            with trio.fail_after(TIMEOUT_S):
                answer = await client.get(self._url)
            wrong = "" if answer.status_code == 200 else f"status {answer.status_code}"
        except (httpx2.HTTPError, trio.TooSlowError) as error:
            wrong = repr(error)
        self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)
        if not wrong:
            self.answered += 1
            return
        self.missed += 1
        if len(self.told) < _MISSED_TOLD_MAX:
            self.told.append(wrong)
