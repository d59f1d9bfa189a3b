"""Clients of the server under test: each asks again as soon as it was answered."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import httpx2
import trio

from rbee.chaos.answers import BROKEN_OFF, Asked, End, Judged, judge_answer
from rbee.chaos.asks import AskNext

# Of the requests that were lost so many are told.
LOST_TOLD_MAX: Final = 20

_LOOK_EVERY_S: Final = 0.01
# A client that was refused asks for something else after this,
AGAIN_AFTER_S: Final = 0.1
# and for the same, where it may, after this: the least that a `Retry-After` says.
RETRY_AFTER_S: Final = 1.0

OpenClient = Callable[[float], httpx2.AsyncClient]
"""Makes a client of the server, with that timeout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much is asked, and of what length."""

    clients: int = 6
    tokens: tuple[int, int] = (20, 120)  # at least and at most; for the synthetic engine
    timeout_s: float = 60.0  # for one whole answer
    tries: int = 1  # so often a client asks, as long as it is told to try again


@dataclass(slots=True)
class Tally:
    """What became of the requests."""

    ends: Counter[End] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)  # by code
    lost: list[str] = field(default_factory=list)  # why, of the first ones
    broken_off: int = 0  # of those lost; the others were wrong
    retried: int = 0  # refusals after which the client asked again; in none of the others
    not_taken: int = 0  # nobody listened any more

    def add(self, judged: Judged) -> None:
        self.ends[judged.end] += 1
        if judged.end is End.REFUSED:
            self.refusals[judged.what] += 1
        elif judged.end is End.LOST:
            self.broken_off += judged.what.startswith(BROKEN_OFF)
            if len(self.lost) < LOST_TOLD_MAX:
                self.lost.append(judged.what)


class Clients:
    """Ask until told to stop; `tally` has what came of it."""

    def __init__(self, url: str, load: Load, ask_next: AskNext, open_client: OpenClient) -> None:
        self.tally: Final = Tally()
        self.open_client: Final = open_client
        self.open = 0
        self.begun = 0  # requests of which something has come
        self._url = url
        self._load = load
        self._ask_next = ask_next
        self._is_stopping = False
        self._may_ask = trio.Event()
        self._may_ask.set()

    async def run(self) -> None:
        """Returns once `stop` was said and the last answer has come."""
        async with (
            self.open_client(self._load.timeout_s) as client,
            trio.open_nursery() as nursery,
        ):
            for _ in range(self._load.clients):
                nursery.start_soon(self._ask_again, client)

    def stop(self) -> None:
        """Ask no more; what is open may end."""
        self._is_stopping = True

    def pause(self) -> None:
        """Ask nothing until `go_on` is said."""
        self._may_ask = trio.Event()

    def go_on(self) -> None:
        self._may_ask.set()

    async def wait_may_ask(self) -> None:
        await self._may_ask.wait()

    async def wait_begun(self, count: int) -> None:
        """Wait until something has come of so many more requests."""
        wanted = self.begun + count
        while self.begun < wanted:
            await trio.sleep(_LOOK_EVERY_S)

    async def ask(self, client: httpx2.AsyncClient, asked: Asked) -> Judged:
        """Ask once, and judge what comes.

        Raises:
          httpx2.ConnectError: nobody listens.
        """
        raw = bytearray()
        self.open += 1
        try:
            with trio.fail_after(self._load.timeout_s):
                url = self._url + asked.path
                async with client.stream("POST", url, json=asked.body) as answer:
                    async for chunk in answer.aiter_bytes():
                        self.begun += not raw
                        raw += chunk
        except httpx2.ConnectError:
            raise
        except (httpx2.HTTPError, trio.TooSlowError) as error:
            return Judged(End.LOST, f"{BROKEN_OFF} after {len(raw)} bytes: {error!r}")
        finally:
            self.open -= 1
        return judge_answer(asked, answer.status_code, bytes(raw))

    async def ask_to_the_end(self, client: httpx2.AsyncClient, asked: Asked) -> Judged:
        """Ask, and ask again where the documents say so, as often as the load allows.

        Raises:
          httpx2.ConnectError: nobody listens.
        """
        for _ in range(self._load.tries - 1):
            judged = await self.ask(client, asked)
            if not judged.may_ask_again:
                return judged
            self.tally.retried += 1
            await trio.sleep(RETRY_AFTER_S)
        return await self.ask(client, asked)

    async def _ask_again(self, client: httpx2.AsyncClient) -> None:
        while not self._is_stopping:
            await self.wait_may_ask()
            try:
                judged = await self.ask_to_the_end(client, self._ask_next())
            except httpx2.ConnectError:
                self.tally.not_taken += 1
                await trio.sleep(AGAIN_AFTER_S)
                continue
            self.tally.add(judged)
            if judged.end is not End.SERVED:
                await trio.sleep(AGAIN_AFTER_S)
