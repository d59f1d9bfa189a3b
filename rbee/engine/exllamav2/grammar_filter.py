"""A grammar as one of exllamav2's sampling filters.

Rule 1: exllamav2 takes any object with these methods; its base class, `ExLlamaV2Filter`, would
        need exllamav2 to be imported, and adds nothing but what stands here.
Rule 2: an exception in a filter would end the step for all jobs. A grammar that fails is
        noted in `failure` and lets everything pass; the step loop then fails that job alone.
"""

from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from rbee.engine.exllamav2.foreign import Foreign
from rbee.engine.grammar import Grammar
from rbee.errors import RequestError


class GrammarFilter:
    """Holds one job's answer to its grammar. Called by the generator and its threads in turn."""

    def __init__(self, grammar: Grammar, end_ids: Collection[int]) -> None:
        self._grammar = grammar
        self._end_ids = end_ids
        self._mask: npt.NDArray[np.bool_] | None = None
        self._background: Future[bool] | None = None
        self.failure: RequestError | None = None

    @property
    def is_finished(self) -> bool:
        """Whether nothing but the answer's end may follow."""
        return self.failure is None and self._grammar.is_finished

    # --- what the generator asks, with exllamav2's names

    def begin(self, prefix_str: str) -> None:
        """The first token of a generator job comes. The grammar goes on where it stands."""

    def feed(self, token: Foreign) -> None:
        token_id = int(token.item())
        self._mask = None
        if token_id not in self._end_ids and self.failure is None:
            try:
                self._grammar.advance(token_id)
            except RequestError as error:
                self.failure = error

    def can_mask_logits(self) -> bool:
        return True

    def use_background_worker(self) -> bool:
        return True

    def prepare_logit_mask(self) -> bool:
        # exllamav2 asks once more for a job that has ended.
        if self._mask is None and self.failure is None and not self._grammar.is_finished:
            try:
                self._mask = self._grammar.mask()
            except RequestError as error:
                self.failure = error
        return True

    def mask_logits(self, logits: Foreign) -> Foreign:
        """Forbid in place what the grammar forbids. ``logits``: float32 [padded vocabulary]."""
        if self._mask is not None:
            row = logits.numpy()
            allowed = self._mask[: len(row)]
            row[: len(allowed)][~allowed] = -np.inf
            row[len(allowed) :] = -np.inf
        return logits

    def background_prepare_logit_mask(self, pool: ThreadPoolExecutor) -> None:
        self._background = pool.submit(self.prepare_logit_mask)

    def background_drop(self) -> None:
        if self._background is not None:
            self._background.result()
            self._background = None

    def get_next(self, mask: bool = False) -> bool:
        assert mask, "exllamav2 asked for token lists of a filter that masks logits"
        self.background_drop()
        return self.prepare_logit_mask()
