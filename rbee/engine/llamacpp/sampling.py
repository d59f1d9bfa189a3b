"""Chooses the next token of one job from a row of logits.

Rule 1: the draw for the n-th token depends on the job's seed and n alone. A job that goes on
        in another worker, or beside other jobs, draws what it would have drawn alone.
Rule 2: a row is the library's memory: it is read here and never written.
Rule 3: the order is bias, penalties, grammar, temperature, top_k, top_p, min_p.
"""

import secrets
from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rbee.ask import Sampling, TokenLogprob
from rbee.engine.engine import Job, Tokenizer
from rbee.engine.grammar import Grammar
from rbee.errors import ErrorCode, RequestError

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]

GREEDY_BELOW: Final = 1e-5  # temperatures that would overflow say "the likeliest" all the same
LOGPROB_MIN: Final = -9999.0  # in place of minus infinity, which JSON cannot say

_MASK: Final = (1 << 64) - 1


def draw(seed: int, index: int) -> float:
    """The random number in [0, 1) for token ``index`` of a job.

    Source: the output function of SplitMix64 (Steele, Lea, Flood 2014), applied twice.
    """
    return (_mix(_mix(seed) ^ _mix(~index & _MASK)) >> 11) * 2.0**-53


def _mix(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


class Sampler:
    """The choices of one job. `choose`, then `accept` what was chosen."""

    def __init__(self, job: Job, grammar: Grammar | None) -> None:
        sampling = job.sampling
        self._sampling: Final = sampling
        self._grammar = grammar
        self._seed: Final = secrets.randbits(63) if sampling.seed is None else sampling.seed
        self._index = job.resumed
        self._bias_ids: Final = np.fromiter(sampling.logit_bias, np.int64)
        self._bias: Final = np.fromiter(sampling.logit_bias.values(), np.float32)
        generated = job.prompt_ids[len(job.prompt_ids) - job.resumed :]
        self._counts = (
            _Counts(generated) if sampling.frequency_penalty or sampling.presence_penalty else None
        )
        self._seen = _Counts(job.prompt_ids) if sampling.repetition_penalty != 1 else None
        self.has_plain_scores: Final = not (
            self._bias.size or self._counts or self._seen or grammar is not None
        )
        self.is_argmax: Final = self.has_plain_scores and sampling.temperature < GREEDY_BELOW

    @property
    def is_finished(self) -> bool:
        """Whether the grammar admits nothing more."""
        return self._grammar is not None and self._grammar.is_finished

    def choose(self, row: FloatArray) -> int:
        """The next token.

        Args:
          row: float32 [vocabulary], raw logits.
        Raises:
          RequestError: the logits are not numbers, or the grammar admits no token.
        """
        scores = row if self.has_plain_scores else self._scores(row)
        if self._sampling.temperature < GREEDY_BELOW:
            token_id = int(scores.argmax())
            if not scores[token_id] > -np.inf:
                raise _no_choice()
            return token_id
        return pick(scores, self._sampling, draw(self._seed, self._index))

    def accept(self, token_id: int) -> None:
        """Note that ``token_id`` is part of the answer now.

        Raises:
          RequestError: the grammar met a limit of its own.
        """
        self._index += 1
        if self._counts is not None:
            self._counts.add(token_id)
        if self._seen is not None:
            self._seen.add(token_id)
        if self._grammar is not None:
            self._grammar.advance(token_id)

    def _scores(self, row: FloatArray) -> FloatArray:
        scores = row.copy()
        if self._bias.size:
            scores[self._bias_ids] += self._bias
        if self._seen is not None:
            ids, penalty = self._seen.ids, np.float32(self._sampling.repetition_penalty)
            seen = scores[ids]
            scores[ids] = np.where(seen > 0, seen / penalty, seen * penalty)
        if self._counts is not None:
            scores[self._counts.ids] -= np.float32(
                self._sampling.frequency_penalty
            ) * self._counts.counts + np.float32(self._sampling.presence_penalty)
        if self._grammar is not None:
            self._grammar.forbid(scores)
        return scores


def pick(scores: FloatArray, sampling: Sampling, chance: float) -> int:
    """Draw one token.

    Args:
      scores: float32 [vocabulary], not normalised; -inf for tokens that may not come.
      sampling: temperature above `GREEDY_BELOW`.
      chance: in [0, 1): where in the cumulated distribution.
    Raises:
      RequestError: no token may come.
    """
    top = scores.max()
    if not np.isfinite(top):
        raise _no_choice()
    weights = np.exp((scores - top) / np.float32(sampling.temperature))
    ids: IntArray | None = None
    if 0 < sampling.top_k < weights.size:
        ids = np.sort(np.argpartition(-weights, sampling.top_k - 1)[: sampling.top_k])
        weights = weights[ids]
    if sampling.top_p < 1:
        kept = nucleus(weights, sampling.top_p)
        ids = kept if ids is None else ids[kept]
        weights = weights[kept]
    if sampling.min_p > 0:
        weights = np.where(weights >= np.float32(sampling.min_p), weights, np.float32(0))
    cumulated = np.cumsum(weights, dtype=np.float64)
    place = int(np.searchsorted(cumulated, chance * cumulated[-1], side="right"))
    if place == cumulated.size:  # rounding: the last one that has any weight
        place = int(np.searchsorted(cumulated, cumulated[-1], side="left"))
    return place if ids is None else int(ids[place])


def nucleus(weights: FloatArray, top_p: float) -> IntArray:
    """The smallest set of tokens whose probability reaches ``top_p``, likeliest first.

    Tokens below a share of (1 - top_p) / size of all weight are never in it: together they
    cannot make up what is left out. So only the others are sorted.

    Args:
      weights: float32 [tokens], not normalised, not negative.
      top_p: 0 < top_p < 1.
    Source: Holtzman et al. 2020, arXiv:1904.09751, section 3.1.
    """
    total = float(weights.sum(dtype=np.float64))
    candidates = np.flatnonzero(weights >= (1 - top_p) * total / weights.size)
    order = candidates[np.argsort(-weights[candidates], kind="stable")]
    cumulated = np.cumsum(weights[order], dtype=np.float64)
    return order[: int(np.searchsorted(cumulated, top_p * total, side="left")) + 1]


def token_logprob(row: FloatArray, token_id: int, top: int, tokenizer: Tokenizer) -> TokenLogprob:
    """How likely ``token_id`` was by the raw logits, and the ``top`` likeliest beside it."""
    highest = row.max()
    normaliser = float(highest) + float(np.log(np.exp(row - highest).sum(dtype=np.float64)))

    def logprob(other: int) -> float:
        return max(LOGPROB_MIN, float(row[other]) - normaliser)

    likeliest: list[int] = []
    if top:
        candidates = np.argpartition(-row, min(top, row.size - 1))[:top]
        likeliest = candidates[np.argsort(-row[candidates], kind="stable")].tolist()
    return TokenLogprob(
        token_id,
        tokenizer.piece(token_id),
        logprob(token_id),
        tuple((other, tokenizer.piece(other), logprob(other)) for other in likeliest),
    )


def _no_choice() -> RequestError:
    return RequestError(ErrorCode.ENGINE_FAILED, "the model gave no token that may come next")


class _Counts:
    """How often each token came, as arrays that grow."""

    def __init__(self, token_ids: Iterable[int]) -> None:
        self._places: dict[int, int] = {}
        self._ids = np.zeros(64, np.int64)
        self._counts = np.zeros(64, np.float32)
        for token_id in token_ids:
            self.add(token_id)

    @property
    def ids(self) -> IntArray:
        return self._ids[: len(self._places)]

    @property
    def counts(self) -> FloatArray:
        return self._counts[: len(self._places)]

    def add(self, token_id: int) -> None:
        place = self._places.setdefault(token_id, len(self._places))
        if place == self._ids.size:
            self._ids = np.concatenate((self._ids, np.zeros_like(self._ids)))
            self._counts = np.concatenate((self._counts, np.zeros_like(self._counts)))
        self._ids[place] = token_id
        self._counts[place] += 1
