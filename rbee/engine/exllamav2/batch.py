"""The running batch: which jobs the generator has, and what a step of it brought them.

Rule 1: prompts enter the generator a bounded number of tokens at a time. It prefills a chunk
        of every new job in one step, so many new jobs at once would hold up all others.
Rule 2: jobs start in the order they came. One that waits for pages is not overtaken.
Rule 3: an answer reserves pages for `LEASE_TOKENS` at a time. When they are used up it goes
        back to the head of the queue, and finds its keys and values in the prefix cache.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from rbee.ask import FinishReason
from rbee.engine.engine import JobFailed, Sampled
from rbee.engine.exllamav2.answer import Answer
from rbee.engine.exllamav2.foreign import Foreign
from rbee.vram import PAGE_TOKENS

_FINISHES: Final[dict[str, FinishReason]] = {"stop_token": "stop", "max_new_tokens": "length"}


class Batch:
    """The generator and the answers in it. Owned by the engine's one thread."""

    def __init__(
        self,
        generator: Foreign,
        *,
        batch_size: int,
        prefill_tokens: int,
        piece: Callable[[int], bytes],
    ) -> None:
        self._generator = generator
        self._batch_size = batch_size
        self._prefill_tokens = prefill_tokens
        self._piece = piece
        self.read_tokens = 0  # in all
        self._waiting: deque[Answer] = deque()
        self._running: dict[int, Answer] = {}

    @property
    def is_empty(self) -> bool:
        return not self._waiting and not self._running

    @property
    def is_prefilling(self) -> bool:
        """Whether the next step reads a prompt."""
        if any(not each.is_decoding for each in self._running.values()):
            return True
        return bool(self._waiting) and len(self._running) < self._batch_size

    def add(self, answer: Answer) -> None:
        self._waiting.append(answer)

    def remove(self, job_id: int) -> None:
        """Forget a job; one that is not here is none."""
        answer = self._running.pop(job_id, None)
        if answer is not None:
            self._generator.cancel(answer.native)
            return
        self._waiting = deque(each for each in self._waiting if each.job_id != job_id)

    def step(self) -> list[Sampled | JobFailed]:
        """One iteration of the generator."""
        self._admit()
        if not self._running:
            return []
        told: list[Sampled | JobFailed] = []
        for result in self._generator.iterate():
            answer = self._running[result["identifier"]]
            if result["stage"] == "prefill":
                left = result["max_progress"] - result["curr_progress"]
                self.read_tokens += max(0, answer.prefill_left - left)
                answer.prefill_left = left
            elif result["stage"] == "streaming":
                answer.is_decoding = True
                told.extend(self._told(answer, result))
        return told

    def _admit(self) -> None:
        """Give waiting jobs to the generator, as far as slots and the prefill budget go."""
        budget = self._prefill_tokens
        for each in self._running.values():
            budget -= 0 if each.is_decoding else self._cost(each)
        is_idle = budget == self._prefill_tokens
        while self._waiting and len(self._running) < self._batch_size:
            cost = self._cost(self._waiting[0])
            if cost > budget and not is_idle:
                return
            answer = self._waiting.popleft()
            self._running[answer.job_id] = answer
            self._generator.enqueue(answer.next_native())
            budget -= cost
            is_idle = False

    def _cost(self, answer: Answer) -> int:
        """Prompt tokens that a job may bring into the next step."""
        return max(1, min(answer.prefill_left, self._prefill_tokens))

    def _told(self, answer: Answer, result: dict[str, Any]) -> list[Sampled | JobFailed]:
        if answer.failure is not None:
            self._forget(answer)
            return [JobFailed(answer.job_id, answer.failure)]
        drawn = answer.take()
        finish = self._finish(answer, result)
        if not drawn and finish is None:
            return []
        ids = tuple(token_id for token_id, _ in drawn)
        pieces = tuple(self._piece(token_id) for token_id in ids)
        logprobs = tuple(logprob for _, logprob in drawn if logprob is not None)
        return [Sampled(answer.job_id, ids, pieces, logprobs, finish)]

    def _finish(self, answer: Answer, result: dict[str, Any]) -> FinishReason | None:
        """How the answer ended, if it has; where only its lease did, it waits for the next."""
        finish = _FINISHES[result["eos_reason"]] if result["eos"] else None
        if answer.is_whole:
            finish = "stop"
        if finish is None:
            return None
        self._forget(answer)
        if finish == "length" and answer.left > 0:
            answer.prefill_left = PAGE_TOKENS  # the rest is in the cache, if it was not taken
            self._waiting.appendleft(answer)
            return None
        return finish

    def _forget(self, answer: Answer) -> None:
        del self._running[answer.job_id]
        self._generator.cancel(answer.native)  # nothing, where the generator has ended it

    def clear(self) -> None:
        """Forget all jobs, and end the threads of the generator."""
        self._waiting.clear()
        self._running.clear()
        for name in ("sampling_pool", "filter_pool"):
            pool = getattr(self._generator, name, None)
            if pool is not None:
                pool.shutdown(wait=False, cancel_futures=True)
