"""Which tokens go into the next batch: a pure decision.

Rule 1: nothing here waits, reads a clock or knows the library.

llama.cpp adds up in another order when it computes one token than when it computes several, and
differences in the last bits turn into other words where two are nearly as likely. `plan_batch`
computes all that is due together, and leaves it at that. `plan_exact` makes passes in which
each token is always computed in the same way, whatever else is due and whatever was before:
tokens of a prompt together, at least two, and with no other job; tokens of an answer one by one,
also those that another worker has brought already.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

BATCH_TOKENS_MAX: Final = 512  # of one step; llama.cpp's own size of a physical batch
PREFILL_TOKENS_MIN: Final = 32  # smaller matrices waste more than they save
STEP_S_MAX: Final = 0.25  # what a step should take: cancels and other streams wait for it


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of one job that goes into the batch."""

    index: int  # which of the running jobs
    count: int  # how many of its pending tokens, from the first on
    is_last: bool  # nothing is pending behind it: its logits give the next token


def plan_batch(pending: Sequence[int], prefill_tokens_max: int) -> list[Chunk]:
    """Choose what each running job computes in the next step.

    Jobs with one pending token decode: all of them are in every batch. What prompts need more
    is shared out oldest first, so that early prompts are through early.

    Args:
      pending: for each running job, oldest first, how many of its tokens are not in the cache.
      prefill_tokens_max: tokens of prompts in this step, all jobs together; at least 1.
    """
    chunks, room = [], prefill_tokens_max
    for index, count in enumerate(pending):
        if count == 1:
            chunks.append(Chunk(index, 1, is_last=True))
        elif count > 1 and room > 0:
            chunk = min(count, room)
            chunks.append(Chunk(index, chunk, is_last=chunk == count))
            room -= chunk
    return chunks


@dataclass(frozen=True, slots=True)
class Due:
    """Tokens of one job that are not in the cache. One of them at least."""

    prompt: int
    answer: int


def plan_exact(due: Sequence[Due], prefill_tokens_max: int) -> list[list[Chunk]]:
    """Choose the passes of the next step: first that of all answers, then one for each prompt.

    Args:
      due: of each running job, oldest first.
      prefill_tokens_max: tokens of prompts in this step, all jobs together; at least 2.
    """
    answers: list[Chunk] = []
    prompts: list[list[Chunk]] = []
    room = prefill_tokens_max
    for index, job in enumerate(due):
        if job.prompt == 0:
            answers.append(Chunk(index, 1, is_last=job.answer == 1))
            continue
        count = min(job.prompt, room)
        if job.prompt - count == 1:  # one token would be left, and then be alone
            count -= 1
        if count >= min(2, job.prompt):
            is_last = count == job.prompt and job.answer == 0
            prompts.append([Chunk(index, count, is_last=is_last)])
            room -= count
    return [answers, *prompts] if answers else prompts


class PrefillPace:
    """How many tokens of prompts fit a step, so that it takes about `STEP_S_MAX`."""

    def __init__(self, tokens_max: int) -> None:
        self._tokens_max = tokens_max
        self.tokens = tokens_max

    def note(self, tokens: int, elapsed_s: float) -> None:
        """Learn from a step that computed ``tokens`` in ``elapsed_s``.

        Sizes are powers of two: few shapes, so that equal prompts meet equal arithmetic.
        """
        if tokens < PREFILL_TOKENS_MIN or elapsed_s <= 0:
            return
        fitting = tokens / elapsed_s * STEP_S_MAX
        size = PREFILL_TOKENS_MIN
        while size * 2 <= min(fitting, self._tokens_max):
            size *= 2
        self.tokens = size
