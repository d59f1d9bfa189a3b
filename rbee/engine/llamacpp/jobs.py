"""The jobs of the CPU engine, and the passes in which their tokens are computed.

Rule 1: a running job is its token ids and a sequence of the cache. What the sequence lacks of
        the ids is pending.
Rule 2: nothing here calls the library.
"""

from collections.abc import Sequence as Items
from dataclasses import dataclass

from rbee.engine.engine import Job
from rbee.engine.llamacpp.batch import Chunk, Due
from rbee.engine.llamacpp.sampling import Sampler
from rbee.engine.llamacpp.sequences import Sequence


@dataclass(slots=True)
class Waiting:
    """A job without a sequence: new, or put back with what it has said already."""

    job: Job
    sampler: Sampler
    token_ids: list[int]  # prompt, and answer so far

    @property
    def prompt_tokens(self) -> int:
        """Without the answer that another worker brought."""
        return len(self.job.prompt_ids) - self.job.resumed


@dataclass(slots=True)
class Running(Waiting):
    sequence: Sequence

    @property
    def pending(self) -> int:
        return len(self.token_ids) - len(self.sequence.token_ids)

    @property
    def due(self) -> Due:
        prompt = max(0, self.prompt_tokens - len(self.sequence.token_ids))
        return Due(prompt, self.pending - prompt)

    @property
    def answered(self) -> int:
        return len(self.token_ids) - len(self.job.prompt_ids)


@dataclass(slots=True)
class Part:
    """What one pass computes of one sequence."""

    sequence: Sequence
    running: Running | None  # None: a filler
    count: int  # of tokens
    draws: bool  # a token, from the logits behind the last of them
    wants_logits: bool  # of the last of them; drawn from or not


@dataclass(slots=True)
class Pass:
    """One decode: its parts in the order of their sequences, else llama.cpp makes several of it."""

    parts: list[Part]
    jobs: int
    tokens: int
    is_reading: bool  # several tokens of a job, or a prompt: more than the answers' next tokens
    read_tokens: int  # those of `tokens` behind which nothing is drawn
    takes_likeliest: bool  # all who draw do

    @property
    def decodes_only(self) -> bool:
        """Each job in it computes its last token and draws the next: so will its next pass."""
        return not self.is_reading and all(part.draws for part in self.parts if part.running)


def make_pass(
    chosen: Items[tuple[Running, Chunk]],
    fillers: Items[Sequence],
    *,
    is_reading: bool,
    wants_all_logits: bool,
) -> Pass:
    """Bring chunks of jobs and fillers into the library's order."""
    parts = [
        Part(filler, None, 1, draws=False, wants_logits=wants_all_logits) for filler in fillers
    ]
    for running, chunk in chosen:
        wants_logits = chunk.is_last or wants_all_logits
        parts.append(Part(running.sequence, running, chunk.count, chunk.is_last, wants_logits))
    parts.sort(key=lambda part: part.sequence.number)
    return Pass(
        parts,
        jobs=len(chosen),
        tokens=sum(chunk.count for _, chunk in chosen),
        is_reading=is_reading,
        read_tokens=sum(chunk.count - chunk.is_last for _, chunk in chosen),
        takes_likeliest=all(running.sampler.is_argmax for running, _ in chosen),
    )
