"""What a request of a simulation is to get: a pure function of its ask.

Each token's id hangs on the prompt, the seed and the token's place, and each id has its own
text: what is lost, doubled, swapped or another's shows at once.
"""

import enum
import zlib
from dataclasses import dataclass

from rbee.ask import Ask, FinishReason
from rbee.errors import ErrorCode


class Poison(enum.Enum):
    """What a request does to its worker."""

    CRASH = "crash"
    EXIT = "exit"
    OUT_OF_MEMORY = "out_of_memory"
    HANG = "hang"


@dataclass(frozen=True, slots=True)
class Script:
    """What becomes of the asks of one prompt."""

    prompt: str
    prompt_tokens: int
    tokens: int  # of the answer; choices differ by up to 2
    finish: FinishReason = "stop"
    poison: Poison | None = None
    poison_at: int = 0  # the token that is never brought
    failure: ErrorCode | None = None  # which the engine ends it with
    fails_at: int = 0  # tokens that come before it


def ask_key(ask: Ask) -> str:
    """Which ask of the simulation it is."""
    return f"{ask.model}:{ask.prompt}/{ask.sampling.seed}"


def length(script: Script, ask: Ask) -> int:
    """Tokens of the whole answer."""
    return script.tokens + (ask.sampling.seed or 0) % 3


def tokens(key: str, start: int, stop: int) -> tuple[int, ...]:
    of_all = zlib.crc32(key.encode())
    return tuple([zlib.crc32(b"/%d" % place, of_all) for place in range(start, stop)])


def text_between(key: str, start: int, stop: int, *, is_end: bool) -> str:
    """The text that tokens ``start`` to ``stop`` bring.

    The text of every fourth token or so is held back until the next comes, as half a character
    and half a stop string are: it is also made from tokens that another worker has brought.
    """
    ids = tokens(key, max(0, start - 1), stop)
    if start > 0 and not _is_held(ids[0]):
        ids = ids[1:]
    if ids and not is_end and _is_held(ids[-1]):
        ids = ids[:-1]
    return "".join(f"{each:x} " for each in ids)


def whole_text(key: str, whole: int) -> str:
    return text_between(key, 0, whole, is_end=True)


def _is_held(token_id: int) -> bool:
    return token_id % 4 == 0
