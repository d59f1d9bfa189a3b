"""Simulated clients: each makes one order, and waits for its answer or goes."""

import math
from collections.abc import Callable
from typing import Protocol

import trio

from rbee.ask import Ask, Sampling
from rbee.errors import ErrorCode, RequestError
from rbee.rate_limits import Limits
from rbee.supervisor.access.principal import ANYBODY, Principal, Role
from rbee.supervisor.api.generation import Generation, Surroundings, TimeLimits
from rbee.supervisor.api.order import Order, choices_of
from rbee.supervisor.api.visit import Visit
from tests.simulation.reply import CheckedReply, PlainShape
from tests.simulation.scenario import Arrival, Leaving


class Judge(Protocol):
    """Who knows which endings are right."""

    def refused(self, client: "Client", error: RequestError) -> None: ...

    def arrives(self, client: "Client") -> None: ...

    def admitted(self, client: "Client") -> None: ...

    def ended(self, client: "Client") -> None: ...

    def look(self, client: "Client") -> None:
        """It waits for its answer: does somebody know of it?"""
        ...

    def violation(self, text: str) -> None: ...

    def note(self, text: str) -> None: ...


class Client:
    """One client, and its one order.

    Args:
      goes_s: when nobody waits any more for what was asked before the weather is calm.
    """

    def __init__(self, arrival: Arrival, around: Surroundings, judge: Judge, goes_s: float) -> None:
        self.arrival = arrival
        self.name = f"c{arrival.number}"
        self.asks = tuple(
            ask
            for script in arrival.scripts
            for ask in choices_of(_ask(arrival.model, script.prompt), arrival.choices)
        )
        self.scripts = [each for each in arrival.scripts for _ in range(arrival.choices)]
        self.left_s: float | None = None  # when it did, if it did
        self.arrived_s = trio.current_time()
        self.limits = TimeLimits(
            self.arrived_s + arrival.deadline_s, arrival.first_token_s, arrival.stall_s
        )
        self.visit = Visit("POST", {}, self.name, self.arrived_s)
        limits = Limits(priority=arrival.priority)
        self.visit.principal = Principal(f"key:{self.name}", Role.USER, limits=limits)
        self._judge = judge
        self._goes_s = math.inf if arrival.is_calm else goes_s
        self._around = around
        self.reply = CheckedReply(
            self.name, self.asks, self.scripts, judge.violation, self._on_write
        )
        order = Order(
            model=arrival.model,
            asks=self.asks,
            choices_per_prompt=arrival.choices,
            is_streamed=arrival.is_streamed,
            include_usage=arrival.include_usage,
            has_logprobs=False,
            top_logprobs=0,
        )
        self.generation = Generation(
            around, f"answer-{self.name}", order, PlainShape(),
            reply=self.reply, visit=self.visit, limits=self.limits,
        )  # fmt: skip

    async def run(self) -> None:
        self._judge.arrives(self)
        try:
            self.generation.start(self.arrived_s)
        except RequestError as error:
            self._judge.refused(self, error)
            return
        self._judge.admitted(self)
        leaves_s, leave = self._leaving()
        while not self.generation.is_over:
            now_s = trio.current_time()
            if now_s >= leaves_s:
                leave()
                continue
            self._begin_status(now_s)
            with trio.move_on_at(min(leaves_s, self.generation.next_check_s(now_s))):
                await self.reply.over.wait()
            self._judge.look(self)
            self.generation.check_time(trio.current_time())
        self._judge.ended(self)

    def _leaving(self) -> tuple[float, Callable[[], None]]:
        leaves_s = self.arrived_s + self.arrival.leaves_after_s
        if leaves_s < self._goes_s and self.arrival.leaving is Leaving.CANCELS:
            return leaves_s, self._cancel
        if leaves_s < self._goes_s and self.arrival.leaving is Leaving.HANGS_UP:
            return leaves_s, self._hang_up
        return self._goes_s, self._hang_up

    def _hang_up(self) -> None:
        self._go()
        self.generation.abandon("client_gone")

    def _go(self) -> None:
        self.left_s = trio.current_time()
        self.reply.left()

    def _cancel(self) -> None:
        self.left_s = trio.current_time()
        name = f"answer-{self.name}" if self.arrival.number % 2 else self.name
        if not self._around.open_requests.cancel(name, ANYBODY):
            self._judge.violation(f"{self.name} is open, and cannot be cancelled")

    def _on_write(self, number: int) -> None:
        """As a face does it: in the middle of a write it may find out that nobody reads."""
        self._begin_status(trio.current_time())
        if number != self.arrival.leaves_at_write:
            return
        if self.arrival.leaving is Leaving.READS_SLOWLY:
            self.left_s = trio.current_time()
            error = RequestError(ErrorCode.SLOW_CLIENT, "the client read the stream too slowly")
            self.generation.fail(error)
        elif self.arrival.leaving is Leaving.BREAKS:
            self._hang_up()

    def _begin_status(self, now_s: float) -> None:
        begun_s = self.reply.begun_s
        if begun_s is not None and now_s >= begun_s + self.arrival.status_after_s:
            self.visit.status = 200


def _ask(model: str, prompt: str) -> Ask:
    return Ask(model=model, prompt=prompt, sampling=Sampling(seed=0))
