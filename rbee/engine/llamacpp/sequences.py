"""The cache's sequences: who holds which tokens, what is kept for later, what must go.

Rule 1: `Sequences` is the only writer of what the cache holds. What a `Sequence` lists is in
        the cache; nothing else is.
Rule 2: a job's room is reserved whole when it starts, so that no step runs out of cells.
        What sequences share is counted for each of them: the truth is never worse.
"""

from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from typing import Protocol

_COMPARED_AT_ONCE = 64  # a slice of this size is compared in C


class Memory(Protocol):
    """The part of a `Context` that holds tokens."""

    def remove(self, sequence: int, position: int) -> bool: ...

    def copy(self, source: int, target: int, length: int) -> None: ...


@dataclass(slots=True, eq=False)
class Sequence:
    """One sequence of the cache."""

    number: int
    token_ids: list[int] = field(default_factory=list)  # computed, and in the cache
    reserved: int = 0  # cells that its job may come to need; 0: no job, kept for its prefix
    used_at: int = 0  # grows with each use


class Sequences:
    """All sequences of one context.

    Args:
      memory: where they are.
      count: how many there are.
      cells: tokens that fit, all sequences together.
      can_share: whether parts of a sequence can be copied and dropped (not with recurrent state).
    """

    def __init__(self, memory: Memory, count: int, cells: int, *, can_share: bool) -> None:
        self._memory = memory
        self._all = [Sequence(number) for number in range(count)]
        self._cells = cells
        self._can_share = can_share
        self._uses = 0

    @property
    def cells(self) -> int:
        return self._cells

    def acquire(self, token_ids: Items[int], reserve: int) -> Sequence | None:
        """Give a job a sequence that already holds as much of its prompt as is known.

        At least the last token of the prompt is left to compute: its logits are wanted.

        Args:
          token_ids: the prompt.
          reserve: cells that prompt and answer may take, at most `cells`.
        Returns:
          None: no sequence is free, or there is no room. Nothing was changed.
        """
        free = [sequence for sequence in self._all if not sequence.reserved]
        reserved = sum(sequence.reserved for sequence in self._all)
        if not free or reserved + reserve > self._cells:
            return None
        source, length = self._longest_prefix(token_ids)
        target = self._target(free, source, length)
        if target is not source:
            self._drop(target, 0)
            if source is not None:
                self._memory.copy(source.number, target.number, length)
                target.token_ids = source.token_ids[:length]
        elif len(target.token_ids) > length:
            self._drop(target, length)
        target.reserved = reserve
        self._touch(target)
        self._make_room()
        return target

    def release(self, sequence: Sequence) -> None:
        """The job is done: keep what was computed for another one with the same beginning."""
        sequence.reserved = 0
        self._touch(sequence)

    def rewind(self, sequence: Sequence) -> None:
        """Take back what a failed decode may have left behind the listed tokens."""
        self._drop(sequence, len(sequence.token_ids))

    def forget_kept(self) -> bool:
        """Drop all that no job uses. Says whether there was anything."""
        kept = [s for s in self._all if not s.reserved and s.token_ids]
        for sequence in kept:
            self._drop(sequence, 0)
        return bool(kept)

    def _longest_prefix(self, token_ids: Items[int]) -> tuple[Sequence | None, int]:
        best, best_length = None, 0
        wanted = list(token_ids[:-1])
        for sequence in self._all:
            length = common_length(sequence.token_ids, wanted)
            if not self._can_share and (sequence.reserved or length < len(sequence.token_ids)):
                continue
            if length > best_length:
                best, best_length = sequence, length
        return best, best_length

    def _target(self, free: list[Sequence], source: Sequence | None, length: int) -> Sequence:
        """Where the job goes: into its source if that loses little, else into the oldest."""
        if source in free and source is not None:
            if not self._can_share or 2 * length >= len(source.token_ids):
                return source
            if len(free) == 1:
                return source
        others = [sequence for sequence in free if sequence is not source]
        return min(others, key=lambda sequence: (bool(sequence.token_ids), sequence.used_at))

    def _make_room(self) -> None:
        """Drop kept sequences, oldest first, until everything reserved fits beside the rest."""
        kept = sorted(
            (s for s in self._all if not s.reserved and s.token_ids), key=lambda s: s.used_at
        )
        used = sum(s.reserved for s in self._all) + sum(len(s.token_ids) for s in kept)
        for sequence in kept:
            if used <= self._cells:
                return
            used -= len(sequence.token_ids)
            self._drop(sequence, 0)

    def _drop(self, sequence: Sequence, position: int) -> None:
        if not self._memory.remove(sequence.number, position):
            position = 0  # a recurrent state has no middle: all of it must go
            self._memory.remove(sequence.number, 0)
        del sequence.token_ids[position:]

    def _touch(self, sequence: Sequence) -> None:
        self._uses += 1
        sequence.used_at = self._uses


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
