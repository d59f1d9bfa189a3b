"""The tokenizer: byte-level BPE with GPT-2's splitting, so any UTF-8 text goes in and comes out."""

import re
from random import Random
from typing import Final

from chat import SPECIAL_TOKENS
from corpus import sample
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY_SIZE: Final = 2048
_DIGITS = re.compile(r"[0-9]+")
_MARKS = re.compile("|".join(re.escape(token) for token in SPECIAL_TOKENS))


def train_tokenizer(seed: int, samples: int) -> Tokenizer:
    """Learn the merges. Digits are left out, so that each stays a token of its own."""
    rng = Random(seed)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = ("".join(text for text, _ in sample(rng)) for _ in range(samples))
    parts = (part for text in texts for part in _MARKS.split(_DIGITS.sub("", text)))
    tokenizer.train_from_iterator(parts, trainer)
    if tokenizer.get_vocab_size() != VOCABULARY_SIZE:
        raise ValueError(f"expected {VOCABULARY_SIZE} tokens, got {tokenizer.get_vocab_size()}")
    return tokenizer
