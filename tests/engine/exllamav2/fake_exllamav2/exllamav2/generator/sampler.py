"""The sampler: changes the logits in place, as the real one does."""

# In the manner of what it stands for, which has no types.
# mypy: ignore-errors
# ruff: noqa: ANN001, ANN003, ANN202, ANN205

from collections import deque
from dataclasses import dataclass, field

import numpy as np
import torch


class ExLlamaV2Sampler:
    @dataclass
    class Settings:
        token_repetition_penalty: float = 1.025
        token_repetition_range: int = -1
        token_repetition_decay: int = 0
        token_frequency_penalty: float = 0.0
        token_presence_penalty: float = 0.0
        temperature: float = 0.8
        smoothing_factor: float = 0.0
        min_temp: float = 0
        max_temp: float = 0.0
        temp_exponent: float = 1.0
        top_k: int = 50
        top_p: float = 0.8
        top_a: float = 0.0
        min_p: float = 0
        tfs: float = 0
        typical: float = 0
        skew: float = 0
        temperature_last: bool = False
        mirostat: bool = False
        mirostat_tau: float = 1.5
        mirostat_eta: float = 0.1
        mirostat_mu: float | None = None
        token_bias: torch.Tensor | None = None
        cfg_scale: float | None = None
        post_sampling_hooks: list = field(default_factory=list)
        dry_allowed_length: int = 2
        dry_base: float = 1.75
        dry_multiplier: float = 0.0
        dry_sequence_breakers: set[int] | None = None
        dry_range: int = 0
        dry_max_ngram: int = 20
        ngram_trie: dict = None
        ngram_index: int = 0
        ngram_history: deque[int] = field(default_factory=deque)
        xtc_probability: float = 0.0
        xtc_threshold: float = 0.1
        xtc_ignore_tokens: frozenset[int] | None = None

        @staticmethod
        def greedy(**kwargs):
            chosen = {"temperature": 1.0, "token_repetition_penalty": 1.0, "top_p": 0.0, "top_k": 1}
            return ExLlamaV2Sampler.Settings(**{**chosen, **kwargs})

    @staticmethod
    def sample(
        logits,
        settings,
        sequence_ids,
        random: float,
        tokenizer,
        prefix_token=None,
        return_top_tokens: int = 0,
        blocked_tokens: list[int] | None = None,
        filters=None,
        filter_prefer_eos: bool = False,
        sync: bool = False,
    ):
        row = logits[0][0].numpy()
        if settings.token_repetition_penalty != 1.0:
            for token_id in set(sequence_ids[0].tolist()):
                factor = settings.token_repetition_penalty
                row[token_id] = (
                    row[token_id] / factor if row[token_id] > 0 else row[token_id] * factor
                )
        if settings.token_bias is not None:
            row += settings.token_bias.numpy()
        for each in filters or []:
            assert each.get_next(mask=True) is True
            logits = each.mask_logits(logits[0][0]).view(1, 1, -1)
        row[tokenizer.get_vocab_size() :] = -np.inf
        chosen = _draw(row.astype(np.float64), settings, random)
        return torch.tensor([[chosen]]), None, None, None, False


def _draw(row, settings, random):
    temperature, top_k = settings.temperature, settings.top_k
    if temperature < 0.01:
        temperature, top_k = 1.0, 1
    order = np.argsort(-row, kind="stable")
    weights = np.exp((row[order] - row[order[0]]) / temperature)
    if 0 < top_k < len(row):
        weights = weights[:top_k]
    weights /= weights.sum()
    if 0 < settings.top_p < 1:
        kept = int(np.searchsorted(np.cumsum(weights), settings.top_p)) + 1
        weights = weights[:kept] / weights[:kept].sum()
    if 0 < settings.min_p < 1:
        weights = weights[weights >= settings.min_p * weights[0]]
        weights /= weights.sum()
    at = int(np.searchsorted(np.cumsum(weights), random * 0.9998, side="right"))
    return int(order[min(at, len(weights) - 1)])
