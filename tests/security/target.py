"""A reader of bytes from outside, as the fuzzer sees it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Target:
    """One reader of bytes."""

    name: str
    read: Callable[[bytes], object]
    seeds: Sequence[bytes]
    words: Sequence[bytes] = ()
    declared: tuple[type[BaseException], ...] = ()
    cpu_s_max: float = 0.25  # of one input of 64 KiB; the machine may be slow


def words(text: str) -> list[bytes]:
    return [each.encode() for each in text.split()]


JSON_WORDS: Final = words('{ } [ ] : , "a":1, null true 1e400 "\\ud800" {"a": [[ [{ "model":')
