"""How long the service was away: short requests at a steady pace, from the fault to the end.

Rule 1: a probe does not wait for the one before it. One that went to a worker that hangs may take
        as long as any answer; the others tell whether the service is there.
"""

import time
from typing import Final

import httpx2
import trio

from rbee.chaos.answers import End
from rbee.chaos.asks import AskNext
from rbee.chaos.clients import Clients

EVERY_S: Final = 0.2
OPEN_MAX: Final = 100
TIMEOUT_S: Final = 60.0


class Prober:
    """`away_s` is the longest time for which no new request was served."""

    def __init__(self, clients: Clients, ask_next: AskNext) -> None:
        self.served = 0
        self._clients = clients
        self._ask_next = ask_next
        self._open = 0
        self._last_s = time.monotonic()
        self._away_s = 0.0
        self._is_stopping = False

    @property
    def away_s(self) -> float:
        return max(self._away_s, time.monotonic() - self._last_s)

    async def run(self) -> None:
        """Returns once `stop` was said and the last probe has its answer.

        What was not served is in the clients' tally.
        """
        async with self._clients.open_client(TIMEOUT_S) as client, trio.open_nursery() as nursery:
            while not self._is_stopping:
                await self._clients.wait_may_ask()
                if self._open < OPEN_MAX:
                    nursery.start_soon(self._probe, client)
                await trio.sleep(EVERY_S)

    def stop(self) -> None:
        """Probe no more; what is open may end."""
        self._is_stopping = True

    async def wait_served(self, count: int) -> None:
        """Wait until so many more probes were served."""
        wanted = self.served + count
        while self.served < wanted:
            await trio.sleep(EVERY_S / 4)

    async def _probe(self, client: httpx2.AsyncClient) -> None:
        self._open += 1
        try:
            judged = await self._clients.ask_to_the_end(client, self._ask_next())
        except httpx2.ConnectError:
            return
        finally:
            self._open -= 1
        if judged.end is End.SERVED:
            now_s = time.monotonic()
            self._away_s, self._last_s = max(self._away_s, now_s - self._last_s), now_s
            self.served += 1
        else:
            self._clients.tally.add(judged)
