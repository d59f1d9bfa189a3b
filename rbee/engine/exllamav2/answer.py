"""One job's answer: what was drawn, how likely it was, and what shapes the next draw.

It outlives the generator's own jobs: an answer is drawn by several of them in turn (see
`batch.py`), and settings, random numbers, penalties and grammar go on from one to the next.
"""

import random
from collections.abc import Callable
from typing import Final

from rbee.ask import TokenLogprob
from rbee.engine.engine import Job
from rbee.engine.exllamav2.foreign import Foreign
from rbee.engine.exllamav2.grammar_filter import GrammarFilter
from rbee.engine.exllamav2.library import Library
from rbee.engine.exllamav2.pages import own_pages
from rbee.engine.exllamav2.sampling import Bias, settings, token_logprob
from rbee.engine.exllamav2.tokenizer import HfTokenizer
from rbee.engine.grammar import Grammar
from rbee.errors import RequestError

# Pages for this many tokens of an answer are reserved at once. Reserving all of ``tokens_max``
# would let one request without a limit take the cache of a whole batch.
LEASE_TOKENS: Final = 1024

Sample = Callable[[Foreign], tuple[Foreign, ...]]
"""exllamav2's ``ExLlamaV2DynamicJob.receive_logits``: logits [1, 1, padded vocabulary] to
(token, ...)."""


class Answer:
    """The answer to one job. Owned by the batch; what `watch` wraps runs in sampler threads.

    Args:
      width: of the generator's rows of logits, at least the vocabulary.
    """

    def __init__(
        self,
        job: Job,
        library: Library,
        tokenizer: HfTokenizer,
        width: int,
        grammar: Grammar | None,
    ) -> None:
        self.job_id = job.job_id
        self.ids = list(job.prompt_ids)
        self.left = job.tokens_max  # tokens that may still come
        self.drawn: list[tuple[int, TokenLogprob | None]] = []  # not handed out yet
        self.prefill_left = len(job.prompt_ids)
        self.is_decoding = False
        self.native: Foreign = None  # the generator's job while it has one
        self._library = library
        self._piece = tokenizer.piece
        self._vocabulary_size = tokenizer.vocabulary_size
        self._end_ids = tokenizer.end_ids
        self._cache_salt = job.cache_salt
        self._logprobs = job.sampling.logprobs
        answered = job.prompt_ids[len(job.prompt_ids) - job.resumed :]
        self._draws = random.Random(job.sampling.seed)  # noqa: S311 - not a secret
        for _ in answered:
            self._draws.random()  # exllamav2 takes one number for each token
        chosen = settings(job.sampling)
        self._bias: Bias | None = None
        if Bias.is_needed(job.sampling):
            chosen["token_bias"] = library.torch.zeros((width,), dtype=library.torch.float)
            self._bias = Bias(job.sampling, chosen["token_bias"].numpy(), answered)
        self._settings = library.generator.ExLlamaV2Sampler.Settings(**chosen)
        self.filter = None if grammar is None else GrammarFilter(grammar, tokenizer.end_ids)

    @property
    def failure(self) -> RequestError | None:
        """Why this answer cannot go on."""
        return None if self.filter is None else self.filter.failure

    @property
    def is_whole(self) -> bool:
        """Whether the grammar lets nothing more follow."""
        return self.filter is not None and self.filter.is_finished

    def next_native(self) -> Foreign:
        """The generator's job that draws the next tokens of this answer."""
        torch = self._library.torch
        self.is_decoding = False
        self.native = self._library.generator.ExLlamaV2DynamicJob(
            input_ids=torch.tensor([self.ids], dtype=torch.long),
            max_new_tokens=min(self.left, LEASE_TOKENS),
            gen_settings=self._settings,
            stop_conditions=sorted(self._end_ids),
            filters=[] if self.filter is None else [self.filter],
            identifier=self.job_id,
        )
        self.native.rng = self._draws
        self.native.receive_logits = self.watch(self.native.receive_logits)
        own_pages(self.native, self._cache_salt, self._library.pages)
        return self.native

    def watch(self, sample: Sample) -> Sample:
        """Wrap the one place where logits come and a token goes.

        exllamav2 holds tokens back while their text is half a character, and gives logits out
        after it has changed them; here each is seen when it is drawn.
        """

        def watched(logits: Foreign) -> tuple[Foreign, ...]:
            raw = None
            if self._logprobs is not None:
                raw = logits[0, 0, : self._vocabulary_size].numpy().copy()
            sampled = sample(logits)
            token_id = int(sampled[0].item())
            logprob = None
            if raw is not None and self._logprobs is not None:
                logprob = token_logprob(raw, token_id, self._logprobs, self._piece)
            if self._bias is not None:
                self._bias.note(token_id)
            self.drawn.append((token_id, logprob))
            return sampled

        return watched

    def take(self) -> list[tuple[int, TokenLogprob | None]]:
        """What was drawn since the last call, without a token that ends the answer."""
        drawn = [each for each in self.drawn if each[0] not in self._end_ids]
        self.drawn.clear()
        self.ids.extend(token_id for token_id, _ in drawn)
        self.left -= len(drawn)
        return drawn
