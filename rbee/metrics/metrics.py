"""What is counted and timed as it happens. Only its own methods write; a scrape reads.

Rule 1: all of it is synchronous, and costs about a microsecond.
Rule 2: what can be read off when somebody asks (states, memory, queues) is not counted here.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import product
from typing import Final

from rbee.metrics import families
from rbee.metrics.distribution import Distribution
from rbee.metrics.families import Family

# Bounds in seconds. Tokens: a CPU's first in some ms, a long prompt's after minutes.
FIRST_TOKEN_S: Final = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 120.0, 300.0,
)  # fmt: skip
INTER_TOKEN_S: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 10.0,
)  # fmt: skip
WAIT_S: Final = (
    0.001, 0.01, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 120.0, 300.0,
)  # fmt: skip
DURATION_S: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0,
    120.0, 300.0,
)  # fmt: skip
LOAD_S: Final = (0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 120.0, 300.0, 600.0)

# With which workers are ended.
SIGNALS: Final = ("SIGTERM", "SIGKILL")

Labels = tuple[str, ...]
Value = float | Distribution


class TokenMeter:
    """What the answers of one model bring, and when."""

    __slots__ = (
        "_completion_tokens", "_failovers", "_first_token", "_inter_token", "_prompt_tokens",
        "_queue_wait",
    )  # fmt: skip

    def __init__(self) -> None:
        self._first_token = Distribution(FIRST_TOKEN_S)
        self._inter_token = Distribution(INTER_TOKEN_S)
        self._queue_wait = Distribution(WAIT_S)
        self._prompt_tokens = 0
        self._completion_tokens = 0
        self._failovers = 0

    def queue_waited(self, wait_s: float) -> None:
        self._queue_wait.observe(wait_s)

    def first_came(self, tokens: int, after_s: float) -> None:
        """The first tokens of an answer are there, so long after its request was."""
        self._first_token.observe(after_s)
        self._completion_tokens += tokens

    def more_came(self, tokens: int, after_s: float) -> None:
        """Some tokens more of an answer, so long after those before."""
        self._inter_token.observe(after_s / tokens, tokens)
        self._completion_tokens += tokens

    def ended(self, prompt_tokens: int) -> None:
        self._prompt_tokens += prompt_tokens

    def failed_over(self) -> None:
        self._failovers += 1

    def readings(self) -> Iterator[tuple[Family, Value]]:
        yield families.FIRST_TOKEN, self._first_token
        yield families.INTER_TOKEN, self._inter_token
        yield families.QUEUE_WAIT, self._queue_wait
        yield families.PROMPT_TOKENS, self._prompt_tokens
        yield families.COMPLETION_TOKENS, self._completion_tokens
        yield families.FAILOVERS, self._failovers


class Metrics:
    """All counters and times of one server.

    Args:
      slots: each slot, and its model. What belongs to no model of these is not told.
      causes: for which a worker can fail.
      reasons: for which somebody is not let in.
    """

    def __init__(
        self,
        slots: Iterable[tuple[str, str]] = (),
        causes: Iterable[str] = (),
        reasons: Iterable[str] = (),
    ) -> None:
        self._models = dict(slots)
        self._meters = {model: TokenMeter() for model in self._models.values()}
        self._loads = {model: Distribution(LOAD_S) for model in self._meters}
        self._durations: dict[str, Distribution] = {}
        self._http: Counter[Labels] = Counter()
        self._requests: Counter[Labels] = Counter()
        # A counter that is first seen as 1 has not grown, for Prometheus: these begin as 0.
        self._denials: Counter[Labels] = Counter({(reason,): 0 for reason in reasons})
        self._failures: Counter[Labels] = Counter(
            {(*slot, cause): 0 for slot, cause in product(self._models.items(), causes)}
        )
        self._kills: Counter[Labels] = Counter(
            {(*slot, signal): 0 for slot, signal in product(self._models.items(), SIGNALS)}
        )

    def meter(self, model: str) -> TokenMeter:
        """Of a model; one that nobody reads if there is none of that name."""
        return self._meters.get(model) or TokenMeter()

    def request_ended(self, method: str, route: str, status: int | None, duration_s: float) -> None:
        """A request of any kind.

        Args:
          method: of those that the server knows, or "other".
          route: as the table of routes has it.
          status: None: no answer has begun.
        """
        self._http[method, route, "none" if status is None else str(status)] += 1
        durations = self._durations.get(route)
        if durations is None:
            durations = self._durations[route] = Distribution(DURATION_S)
        durations.observe(duration_s)

    def answer_ended(self, route: str, model: str, outcome: str) -> None:
        """A request for tokens. Args: outcome: of the catalogue of errors, or "ok" and the like."""
        self._requests[route, model if model in self._meters else "unknown", outcome] += 1

    def denied(self, reason: str) -> None:
        """Somebody was not let in. Args: reason: one of the audit log's words for it."""
        self._denials[(reason,)] += 1

    def worker_ready(self, slot: str, load_s: float) -> None:
        self._loads[self._models[slot]].observe(load_s)

    def worker_failed(self, slot: str, cause: str) -> None:
        self._failures[slot, self._models[slot], cause] += 1

    def worker_killed(self, slot: str, signal: str) -> None:
        self._kills[slot, self._models[slot], signal] += 1

    def kills(self) -> Counter[str]:
        """Signals that were sent to end a worker, by its slot."""
        counted: Counter[str] = Counter()
        for (slot, _model, _signal), times in self._kills.items():
            counted[slot] += times
        return counted

    def readings(self) -> Iterator[tuple[Family, Labels, Value]]:
        """All that was counted and timed so far."""
        for family, counted in (
            (families.HTTP_REQUESTS, self._http),
            (families.REQUESTS, self._requests),
            (families.AUTH_FAILURES, self._denials),
            (families.WORKER_FAILURES, self._failures),
            (families.WORKER_KILLS, self._kills),
        ):
            for labels, times in counted.items():
                yield family, labels, times
        for route, durations in self._durations.items():
            yield families.HTTP_DURATION, (route,), durations
        for model, meter in self._meters.items():
            yield families.WORKER_LOAD, (model,), self._loads[model]
            for family, value in meter.readings():
                yield family, (model,), value
