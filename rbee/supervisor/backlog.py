"""Requests that wait for a worker: bounded, by model, and how long they will. Pure."""

import math
from typing import Final

from rbee.ask import Ask
from rbee.errors import ErrorCode, RequestError
from rbee.rate_limits import Priority
from rbee.supervisor.line import Line

# Retry-After is told in whole seconds, within these bounds.
RETRY_AFTER_S_MIN: Final = 1
RETRY_AFTER_S_MAX: Final = 3600

# How much the newest request counts in the mean time that places are held, and how many
# make it a mean.
NEWEST_WEIGHT: Final = 0.1
SAMPLES_MIN: Final = 5

# Who would wait this much longer than its time allows is refused at once. Above 1: the mean
# says little of one request.
WAIT_TO_LIMIT_MAX: Final = 1.25

# Without the model's tokenizer a prompt is counted by its letters; English has about four to a
# token, and other writing systems fewer.
LETTERS_PER_TOKEN: Final = 3


def estimate_tokens(ask: Ask) -> int:
    """How many tokens a request may take, prompt and answer, as far as that shows in it."""
    letters = len(ask.prompt or "") + sum(len(message.content) for message in ask.messages)
    return letters // LETTERS_PER_TOKEN + len(ask.prompt_ids or ()) + (ask.tokens_max or 0)


class Bound:
    """How much waits in all lines together, and how much may.

    Written by the `Backlog`s that share it.

    Args:
      requests_max: over all models.
      tokens_max: of all of them together, as `estimate_tokens` has them.
    """

    def __init__(self, requests_max: int, tokens_max: int) -> None:
        self.requests = 0
        self._tokens = 0
        self._requests_max = requests_max
        self._tokens_max = tokens_max

    def has_room(self, requests: int, tokens: int) -> bool:
        """Whether so many more may wait, which belong together, as choices of one answer.

        Where nobody waits they may, however many they are: no time would make more room for them.
        """
        if not self.requests:
            return self._requests_max > 0
        return (
            self.requests + requests <= self._requests_max
            and self._tokens + tokens <= self._tokens_max
        )

    def add(self, tokens: int) -> None:
        self.requests += 1
        self._tokens += tokens

    def remove(self, tokens: int) -> None:
        self.requests -= 1
        self._tokens -= tokens


class Backlog:
    """Ids of waiting requests: a `Line` for each model.

    Who adds one that is new asks the bound first. It does not hold for one that was admitted.
    """

    def __init__(self, bound: Bound) -> None:
        self._bound = bound
        self._lines: dict[str, Line] = {}

    def count(self, model: str) -> int:
        return len(self._lines.get(model, ()))

    def place(self, model: str, priority: Priority) -> int:
        """Which turn one of that class would have that came now, about; 1: the next."""
        line = self._lines.get(model)
        return 1 if line is None else line.place(priority)

    def add(
        self,
        model: str,
        request_id: int,
        tokens: int = 0,
        priority: Priority = Priority.NORMAL,
    ) -> None:
        self._line(model).add(request_id, tokens, priority)
        self._bound.add(tokens)

    def add_first(self, model: str, request_id: int, tokens: int = 0) -> None:
        """Put back one that had its turn."""
        self._line(model).add_first(request_id, tokens)
        self._bound.add(tokens)

    def first(self, model: str) -> int | None:
        """The one whose turn it is; it stays."""
        line = self._lines.get(model)
        return None if line is None else line.first()

    def remove(self, model: str, request_id: int, *, is_served: bool = False) -> bool:
        """Take one out; ``is_served``: as it has its turn. False: it does not wait here."""
        line = self._lines.get(model)
        if line is None or request_id not in line:
            return False
        self._bound.remove(line.serve(request_id) if is_served else line.remove(request_id))
        return True

    def waiting(self, model: str) -> list[int]:
        line = self._lines.get(model)
        return [] if line is None else line.ids()

    def _line(self, model: str) -> Line:
        return self._lines.setdefault(model, Line())


class Rates:
    """How long requests of each model hold a place, as a moving mean.

    However they end: the queue moves on by answers that are broken off as by those that are whole.
    """

    def __init__(self) -> None:
        self._mean_s: dict[str, float] = {}
        self._samples: dict[str, int] = {}

    def note(self, model: str, held_s: float) -> None:
        """A request has left its worker, ``held_s`` after it was sent there."""
        samples = self._samples[model] = self._samples.get(model, 0) + 1
        mean_s = self._mean_s.get(model, 0.0)
        self._mean_s[model] = mean_s + max(NEWEST_WEIGHT, 1 / samples) * (held_s - mean_s)

    def wait_s(self, model: str, place: int, capacity: int) -> float | None:
        """How long the request at that place of the queue will wait.

        Args:
          place: 1 for the first.
          capacity: requests that are worked on at once, all of which are now.
        Returns:
          None: nobody can know, as too few have ended, or no worker is ready.
        """
        if self._samples.get(model, 0) < SAMPLES_MIN or capacity <= 0:
            return None
        return self._mean_s[model] * place / capacity


def check_queue(
    wait_s: float | None,
    last_wait_s: float | None,
    *,
    has_room: bool,
    remaining_s: float,
    first_token_timeout_s: float,
) -> None:
    """Whether requests that belong together may wait, and have the time to.

    Args:
      wait_s: how long the first of them will, as `Rates.wait_s` has it.
      last_wait_s: how long the last of them will.

    Raises:
      RequestError: QUEUE_FULL.
    """
    if not has_room:
        problem = "the queue is full"
    elif last_wait_s is not None and last_wait_s > remaining_s * WAIT_TO_LIMIT_MAX:
        problem = "the queue is longer than the deadline of this request allows"
    elif wait_s is not None and wait_s > first_token_timeout_s * WAIT_TO_LIMIT_MAX:
        problem = f"the queue is longer than the {first_token_timeout_s:g} s for a first token"
    else:
        return
    raise RequestError(ErrorCode.QUEUE_FULL, problem, retry_after_s=retry_after_s(wait_s))


def retry_after_s(wait_s: float | None) -> float:
    """What to tell a client whose request would have waited so long."""
    if wait_s is None:
        return float(RETRY_AFTER_S_MIN)
    return float(min(RETRY_AFTER_S_MAX, max(RETRY_AFTER_S_MIN, math.ceil(wait_s))))
