"""Judges how each request ended: may it end so, and in time?

Rule 1: an answer is whole and right, or there is an error that what happened explains.
Rule 2: who is innocent is not refused as guilty; who is guilty does not end more workers than is
        promised.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Final

import trio

from rbee.errors import ErrorCode, RequestError
from rbee.supervisor.pool import Pool
from rbee.supervisor.slot import Slot
from rbee.wire import Generate
from tests.simulation.client import Client
from tests.simulation.oracle import Script, ask_key
from tests.simulation.pool_watch import PoolWatch, takes_more
from tests.simulation.scenario import Leaving, Scenario, Weather
from tests.simulation.trace import Trace

# How late an end may be beside what the supervisor slept through.
LATE_S: Final = 0.002

# How long a crash is held against who was in work (`quarantine.SUSPECT_S`).
SUSPECT_S: Final = 600.0

# So many workers a guilty request may end before it is found (`quarantine.py`, rule 3). Where it
# was asked for several times, its equals are in work at each slot, at first and then apart.
KILLS_MAX: Final = 4
KILLS_PER_SLOT_MAX: Final = 2


class RequestWatch:
    """Implements `client.Judge`."""

    def __init__(
        self, scenario: Scenario, pool: Pool, slots: list[Slot], watch: PoolWatch, trace: Trace
    ) -> None:
        self.scripts: Final[dict[str, Script]] = {
            script.prompt: script for each in scenario.arrivals for script in each.scripts
        }
        self.woken_s = -1.0  # when the supervisor woke from the last sleep
        self.slept_from_s = -1.0  # when it began
        self.outcomes: Final[defaultdict[str, int]] = defaultdict(int)
        self._kills: Final[defaultdict[str, list[float]]] = defaultdict(list)
        self._sent: Final[defaultdict[str, int]] = defaultdict(int)
        self._scenario = scenario
        self._queued = 0  # before the newest client came
        self._pool = pool
        self._slots = slots
        self._watch = watch
        self._trace = trace

    def violation(self, text: str) -> None:
        self._trace.violation(text)

    def note(self, text: str) -> None:
        self._trace.note(text)

    def generated(self, message: Generate) -> None:
        self._sent[f"{message.correlation_id} {ask_key(message.ask)}"] += 1
        self.note(f"generate {message.request_id} {message.correlation_id}")

    # --- how requests end

    def refused(self, client: Client, error: RequestError) -> None:
        self._count(client, f"refused {error.code.value}")
        scenario, model = self._scenario, client.arrival.model
        match error.code:
            case ErrorCode.QUEUE_FULL:
                is_full = self._pool.queued >= scenario.queue_max
                is_right = is_full or self._places(model) < len(client.asks)
            case ErrorCode.MODEL_UNAVAILABLE:
                is_right = self._is_over(model)
            case ErrorCode.DRAINING:
                is_right = self._pool.is_draining
            case ErrorCode.REQUEST_QUARANTINED:
                is_right = self._is_guilty(client)
            case _:
                is_right = False
        is_calm = client.arrival.is_calm and error.code is not ErrorCode.QUEUE_FULL
        self._expect(is_right and not is_calm, client, f"is refused: {error.code}")
        told = client.reply.writes or client.reply.over.is_set()
        self._expect(not told, client, "is refused, and told something too")

    def arrives(self, client: Client) -> None:
        self._queued = self._pool.queued

    def admitted(self, client: Client) -> None:
        """Called in the moment in which it arrived. An order that is alone may be of any size."""
        self.note(f"{client.name} is open")
        most = max(self._scenario.queue_max, self._queued, len(client.asks))
        self._expect(self._pool.queued <= most, client, "waits in a queue that is full")

    def look(self, client: Client) -> None:
        generation = client.generation
        if not generation.is_over:
            mine = [
                each for each in self._pool._open.values() if each.correlation_id == client.name
            ]
            is_known = len(mine) == generation._unfinished
            self._expect(is_known, client, "waits for what nobody works on")

    def ended(self, client: Client) -> None:
        reply, now_s = client.reply, trio.current_time()
        due_s = max(client.limits.deadline_s, self.woken_s) + LATE_S
        self._expect(now_s <= due_s, client, f"ends {now_s - due_s:.3f} s late")
        facts = client.visit.facts
        told = facts.get("completion_tokens", 0)
        self._expect(told >= reply.tokens, client, "was told more tokens than were counted")
        if reply.is_whole:
            self._count(client, "whole")
            self._check_usage(client)
        elif reply.error is not None:
            self._count(client, f"failed {reply.error.code.value}")
            is_right = self._may_fail(client, reply.error.code)
            self._expect(is_right, client, f"fails: {reply.error.code}: {reply.error.message}")
        else:
            self._count(client, "left")
            self._expect(client.left_s is not None, client, "ends without a word")
        self._expect(
            reply.is_whole or not client.arrival.is_calm, client, "got no answer in calm weather"
        )

    def _check_usage(self, client: Client) -> None:
        reply, arrival = client.reply, client.arrival
        moved = sum(
            len(self._watch.interruptions[f"{client.name} {ask_key(each)}"]) for each in client.asks
        )
        expected = {
            "prompt_tokens": sum(script.prompt_tokens for script in arrival.scripts),
            "completion_tokens": reply.tokens,
        }
        expected["total_tokens"] = sum(expected.values())
        if moved:
            expected["failovers"] = moved
        if not arrival.is_streamed or arrival.include_usage:
            self._expect(reply.usage == expected, client, f"is told {reply.usage} of {expected}")
        else:
            self._expect(reply.usage is None, client, "is told the usage unasked")
        facts = {key: client.visit.facts.get(key) for key in ("prompt_tokens", "completion_tokens")}
        is_right = all(expected[key] == value for key, value in facts.items())
        self._expect(is_right, client, f"has {facts} in the log, instead of {expected}")

    def _may_fail(self, client: Client, code: ErrorCode) -> bool:
        arrival = client.arrival
        has_asked = client.left_s is not None
        by_script = any(script.failure is code for script in arrival.scripts)
        rules: dict[ErrorCode, Callable[[], bool]] = {
            ErrorCode.DEADLINE_EXCEEDED: lambda: _is_late(client),
            ErrorCode.MODEL_UNAVAILABLE: lambda: self._is_over(arrival.model),
            ErrorCode.DRAINING: lambda: self._pool.is_draining,
            ErrorCode.WORKER_FAILED: lambda: any(
                self._was_given_up(client, ask_key(each)) for each in client.asks
            ),
            ErrorCode.REQUEST_QUARANTINED: lambda: self._is_guilty(client),
            ErrorCode.CANCELLED: lambda: has_asked and arrival.leaving is Leaving.CANCELS,
            ErrorCode.SLOW_CLIENT: lambda: has_asked and arrival.leaving is Leaving.READS_SLOWLY,
        }
        return rules.get(code, lambda: by_script)()

    def _is_over(self, model: str) -> bool:
        """Now, or a moment ago: who is told so hears it a little later, or after a sleep."""
        is_over = all(slot.is_over for slot in self._slots if slot.model.name == model)
        now_s = trio.current_time()
        since_s = self.slept_from_s if now_s == self.woken_s else now_s
        return is_over or self._watch.over_s.get(model, -1.0) >= since_s

    def _places(self, model: str) -> int:
        """How many would not have had to wait; what is kept for suspects is no place."""
        if self._pool._dispatch._kept or self._pool.queued:
            return 0
        workers = (slot.worker for slot in self._slots if slot.model.name == model)
        taking = (worker for worker in workers if worker is not None and takes_more(worker))
        return sum(worker.batch_size - worker.open_requests for worker in taking)

    def _was_given_up(self, client: Client, key: str) -> bool:
        """Whether it was interrupted so often in a row without a token."""
        found = self._watch.interruptions[f"{client.name} {key}"]
        last = found[-(self._scenario.worker.failovers_max + 1) :]
        return len(last) > self._scenario.worker.failovers_max and len(set(last)) == 1

    # --- poison

    def _is_guilty(self, client: Client) -> bool:
        return any(
            self._has_crashed_twice(ask_key(ask), is_poison=script.poison is not None)
            for ask, script in zip(client.asks, client.scripts, strict=True)
        )

    def _has_crashed_twice(self, key: str, *, is_poison: bool) -> bool:
        """Innocent ones are hit by chance alone, and where there is chance."""
        mine = [each for each in self._watch.crashes if key in each.in_work]
        was_alone = any(len(each.in_work) == 1 for each in mine[1:])
        may_be = is_poison or self._scenario.weather is Weather.STORM
        return was_alone and may_be

    def poisoned(self, key: str) -> None:
        """A request has ended a worker."""
        now_s = trio.current_time()
        kills = self._kills[key]
        kills.append(now_s)
        recent = [each for each in kills if each > now_s - SUSPECT_S]
        if self._scenario.worker.quarantine_s >= SUSPECT_S:
            told = f"{key} has ended {len(recent)} workers within {SUSPECT_S:g} s"
            slots = sum(slot.model.name == key.partition(":")[0] for slot in self._slots)
            most = max(KILLS_MAX, KILLS_PER_SLOT_MAX * slots) + self._blamed_by_chance(now_s)
            self._trace.expect(len(recent) <= most, told)

    def _blamed_by_chance(self, now_s: float) -> int:
        """How often what was in work alone had bad luck: it may have been blamed for others."""
        recent = [each for each in self._watch.crashes if each.at_s > now_s - 2 * SUSPECT_S]
        return sum(
            1 for each in recent if len(each.in_work) == 1 and not each.in_work & self._kills.keys()
        )

    # ---

    def _count(self, client: Client, how: str) -> None:
        self.outcomes[how] += 1
        self.note(f"{client.name} {how}")

    def _expect(self, holds: bool, client: Client, text: str) -> None:
        self._trace.expect(holds, f"{client.name} ({client.asks[0].prompt}) {text}")


def _is_late(client: Client) -> bool:
    limits, now_s = client.limits, trio.current_time() + LATE_S
    soonest_s = min(limits.first_token_timeout_s, limits.stall_timeout_s)
    return now_s >= min(limits.deadline_s, client.arrived_s + soonest_s)
