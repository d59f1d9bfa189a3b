"""What a fault finds when it strikes: the server, its workers, its clients, and chance."""

import random
import signal
import time
from collections.abc import Callable, Collection
from typing import Any, Final

import httpx2
import trio

from rbee.chaos.answers import End, Judged
from rbee.chaos.asks import count_to
from rbee.chaos.clients import Clients
from rbee.chaos.processes import signal_child
from rbee.chaos.server import DrillError, Server

LOOK_EVERY_S: Final = 0.02
WAIT_TIMEOUT_S: Final = 30.0
SERVING: Final = ("ready", "busy")

Row = dict[str, Any]  # one of `GET /v1/rbee/workers`


class Missed(DrillError):
    """What the fault was meant for was not there when it struck."""


class Scene:
    """One drill, as its fault sees it.

    Args:
      chance: all that is random in the drill comes from it.
      timeout_s: how long to wait for a worker that is wanted, and for each word of an answer.
    """

    def __init__(
        self,
        server: Server,
        clients: Clients,
        chance: random.Random,
        timeout_s: float = WAIT_TIMEOUT_S,
    ) -> None:
        self.server: Final = server
        self.clients: Final = clients
        self.chance: Final = chance
        self._timeout_s = timeout_s
        self.struck_s = time.monotonic()
        self.must_go: Final[set[int]] = set()  # pids of workers that will not be seen again
        self.notes: Final[list[str]] = []  # figures worth telling

    def strike(self) -> None:
        """The fault happens now."""
        self.struck_s = time.monotonic()

    async def moment(self, least_s: float = 0.0, most_s: float = 1.0) -> None:
        """Some time between those two."""
        await trio.sleep(self.chance.uniform(least_s, most_s))

    async def wait_worker(self, is_meant: Callable[[Row], bool], what: str) -> Row:
        """One of the workers that are as they are wanted, by chance.

        Raises:
          Missed: there is none in time.
        """
        with trio.move_on_after(self._timeout_s):
            while True:
                found = [row for row in await self.server.workers() if is_meant(row)]
                if found:
                    return self.chance.choice(found)
                await trio.sleep(LOOK_EVERY_S)
        raise Missed(f"no worker {what} within {self._timeout_s:g} s")

    async def busy_worker(self) -> Row:
        return await self.wait_worker(lambda row: bool(row["state"] == "busy"), "is busy")

    async def replacement(self, gone: Row, states: Collection[str]) -> Row:
        """The next worker of the slot of ``gone``, in one of those states."""
        return await self.wait_worker(
            lambda row: (
                row["slot"] == gone["slot"]
                and row["pid"] not in {None, gone["pid"]}
                and row["state"] in states
            ),
            f"of {gone['slot']} is {' or '.join(states)}",
        )

    def signal_worker(self, row: Row, number: signal.Signals = signal.SIGKILL) -> None:
        """Raises: Missed: it has ended already."""
        if not self.try_signal(row, number):
            raise Missed(f"worker {row['slot']}, pid {row['pid']}, was gone before the fault")

    def try_signal(self, row: Row, number: signal.Signals = signal.SIGKILL) -> bool:
        """False: it had ended already, or has not begun."""
        if row["pid"] is None or not signal_child(self.server.pid, row["pid"], number):
            return False
        self.must_go.add(row["pid"])
        return True

    async def ask(self, prompt: str, *, model: str = "first", tokens: int = 60) -> Judged:
        """One request of the drill itself; it is not in the tally.

        Raises:
          DrillError: nobody listens.
        """
        asked = count_to(tokens, self.chance, prompt=prompt, model=model)
        asked.body["n"] = 1
        try:
            async with self.server.open_client(self._timeout_s) as client:
                return await self.clients.ask(client, asked)
        except httpx2.ConnectError as error:
            raise DrillError(f"the server takes no connection: {error}") from error

    async def trigger(self, prompt: str, *codes: str, model: str = "first") -> None:
        """Ask for what makes the synthetic engine's fault strike.

        Args:
          codes: refusals that may come of it; none: it must be served.
        Raises:
          DrillError: something else came of it.
        """
        self.strike()
        judged = await self.ask(prompt, model=model)
        self.notes.append(f"the request at fault: {judged.what or judged.end.value}")
        wanted = judged.what in codes if codes else judged.end is End.SERVED
        if not wanted:
            expected = " or ".join(codes) or "an answer"
            raise DrillError(
                f"the request at fault ended {judged.end.value} ({judged.what}), not {expected}"
            )
