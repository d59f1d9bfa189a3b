"""The cache's sequences: who holds which tokens, what is kept for later, what is computed.

Each sequence has cells of its own, enough for a whole context. llama.cpp computes sequences
with neighbouring numbers in one pass, and others in a pass each, for which it builds a new
graph: measured at 4 times the cost for 8 jobs on every second sequence. So jobs are placed
side by side, and a gap between two is filled by a token that is thrown away.

Rule 1: `Sequences` is the only writer of what the cache holds. What a `Sequence` lists is in
        the cache; nothing else is, once a step is over.
Rule 2: what a job has computed is found by jobs with the same salt alone, whether it still runs
        or is kept.
"""

import sys
from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from typing import Protocol

_COMPARED_AT_ONCE = 64  # a slice of this size is compared in C


class Memory(Protocol):
    """The part of a `Context` that holds tokens."""

    def remove(self, sequence: int, position: int) -> bool: ...

    def copy(self, source: int, target: int) -> None: ...


@dataclass(slots=True, eq=False)
class Sequence:
    """One sequence of the cache."""

    number: int
    token_ids: list[int] = field(default_factory=list)  # computed, and in the cache
    is_taken: bool = False  # by a job; else what it holds is kept for its prefix
    salt: bytes = b""  # of the job that has it, or had it last
    used_at: int = 0  # grows with each use
    shared_max: int = sys.maxsize  # of its tokens others may take over so many, the first ones


class Sequences:
    """All sequences of one context.

    Args:
      memory: where they are.
      count: how many there are.
      cells: tokens that fit in each.
      can_share: whether parts of a sequence can be copied and dropped (not with recurrent state).
    """

    def __init__(self, memory: Memory, count: int, cells: int, *, can_share: bool) -> None:
        self._memory = memory
        self._all = [Sequence(number) for number in range(count)]
        self._cells = cells
        self._can_share = can_share
        self._uses = 0
        self._fillers: list[Sequence] = []

    def acquire(
        self, token_ids: Items[int], exact: int | None = None, salt: bytes = b""
    ) -> Sequence | None:
        """Give a job a sequence that already holds as much of its prompt as is known.

        At least the last token of the prompt is left to compute: its logits are wanted.

        Args:
          exact: tokens of the prompt, where each must have been computed as `plan_exact` has it:
            two are left to compute then, and what follows the prompt is nobody else's.
          salt: prompts are known to those who have the same one.
        Returns:
          None: no sequence is free.
        """
        free = [sequence for sequence in self._all if not sequence.is_taken]
        if not free:
            return None
        wanted = list(token_ids[: -1 if exact is None else max(0, exact - 2)])
        source, length = self._longest_prefix(wanted, salt)
        target = self._place(free, source, length)
        if source is not None and target is not source:
            self._drop(target, 0)
            self._memory.copy(source.number, target.number)
            target.token_ids = list(source.token_ids)
        if len(target.token_ids) > length:
            self._drop(target, length)
        target.is_taken, target.salt = True, salt
        target.shared_max = sys.maxsize if exact is None else exact
        self._note_use(target)
        return target

    def release(self, sequence: Sequence) -> None:
        """The job is done: keep what was computed for another one with the same beginning."""
        sequence.is_taken = False
        self._note_use(sequence)
        if len(sequence.token_ids) >= self._cells:  # a cell for a filler
            self._drop(sequence, self._cells - 1)

    @property
    def fillers(self) -> list[Sequence]:
        """The sequences in the gaps between those that are taken."""
        return self._fillers

    def beside(self, numbers: Items[int], *, wants_pair: bool) -> list[Sequence]:
        """The sequences between these, whoever has them.

        Args:
          wants_pair: of one alone a neighbour.
        """
        first, last = min(numbers), max(numbers)
        if wants_pair and first == last and len(self._all) > 1:
            first, last = (first, first + 1) if first + 1 < len(self._all) else (first - 1, first)
        return [self._all[each] for each in range(first, last + 1) if each not in numbers]

    def rewind(self, sequence: Sequence) -> None:
        """Take back what a decode left behind the listed tokens."""
        self._drop(sequence, len(sequence.token_ids))

    def forget_kept(self) -> bool:
        """Drop all that no job uses. Says whether there was anything."""
        kept = [s for s in self._all if not s.is_taken and s.token_ids]
        for sequence in kept:
            self._drop(sequence, 0)
        return bool(kept)

    def _longest_prefix(self, wanted: list[int], salt: bytes) -> tuple[Sequence | None, int]:
        best, best_length = None, 0
        for sequence in self._all:
            if sequence.salt != salt:
                continue
            length = min(common_length(sequence.token_ids, wanted), sequence.shared_max)
            if not self._can_share and (sequence.is_taken or length < len(sequence.token_ids)):
                continue
            if length > best_length:
                best, best_length = sequence, length
        return best, best_length

    def _place(self, free: list[Sequence], source: Sequence | None, length: int) -> Sequence:
        """Where a job goes: into its source if that loses little, else near the other jobs."""
        if source is not None and source in free:
            loses_little = not self._can_share or 2 * length >= len(source.token_ids)
            if loses_little or len(free) == 1:
                return source
            free = [sequence for sequence in free if sequence is not source]
        taken = [sequence.number for sequence in self._all if sequence.is_taken]

        def dearness(sequence: Sequence) -> tuple[int, bool, int]:
            numbers = [*taken, sequence.number]
            return max(numbers) - min(numbers), bool(sequence.token_ids), sequence.used_at

        return min(free, key=dearness)

    def _drop(self, sequence: Sequence, position: int) -> None:
        if not self._memory.remove(sequence.number, position):
            position = 0  # a recurrent state has no middle: all of it must go
            self._memory.remove(sequence.number, 0)
        del sequence.token_ids[position:]

    def _note_use(self, sequence: Sequence) -> None:
        self._uses += 1
        sequence.used_at = self._uses
        taken = [other.number for other in self._all if other.is_taken]
        between = self._all[taken[0] : taken[-1]] if taken else []
        self._fillers = [other for other in between if not other.is_taken]


def common_length(first: Items[int], second: Items[int]) -> int:
    """How many items both begin with. Lists are compared in slices, in C."""
    end = min(len(first), len(second))
    at = 0
    while at < end and first[at : at + _COMPARED_AT_ONCE] == second[at : at + _COMPARED_AT_ONCE]:
        at += _COMPARED_AT_ONCE
    at = min(at, end)
    while at < end and first[at] == second[at]:
        at += 1
    return at
