"""What one body asks for in all: one ask for each choice, and how the answer is given."""

from dataclasses import dataclass
from typing import Final

import msgspec

from rbee.ask import Ask

SEED_MASK: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Order:
    """A body that was read and checked. Choice ``i`` is the answer to ``asks[i]``."""

    model: str
    asks: tuple[Ask, ...]
    choices_per_prompt: int  # so many asks in a row share a prompt
    is_streamed: bool
    include_usage: bool  # a last chunk with the usage; for streams
    has_logprobs: bool
    top_logprobs: int


def choices_of(ask: Ask, count: int) -> list[Ask]:
    """The asks for several choices of one prompt.

    With a seed, choice ``i`` has the seed plus ``i``: the choices differ, and are the same
    each time that the request is made.
    """
    seed = ask.sampling.seed
    if seed is None:
        return [ask] * count
    samplings = [
        msgspec.structs.replace(ask.sampling, seed=(seed + choice) & SEED_MASK)
        for choice in range(count)
    ]
    return [msgspec.structs.replace(ask, sampling=each) for each in samplings]
