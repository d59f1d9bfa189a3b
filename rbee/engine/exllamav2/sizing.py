"""How much fits: context, batch and key/value cache of a model on a GPU. Pure arithmetic.

Rule: what the operator asked for is done or refused, never trimmed; what was left open is
      chosen here, and `Plan` says what came out.
"""

from dataclasses import dataclass

from rbee.config import ModelConfig
from rbee.errors import EngineError, ExitCode
from rbee.vram import (
    BATCH_SIZE_DEFAULT,
    GIB,
    PAGE_TOKENS,
    PREFILL_TOKENS_MAX,
    ModelShape,
    cache_token_bytes,
    pages_up,
    useful_cache_tokens,
    working_bytes,
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to load with."""

    context_length: int
    batch_size: int
    cache_tokens: int
    prefill_tokens: int
    cache_bits: int


def plan(shape: ModelShape, model: ModelConfig, free_bytes: int) -> Plan:
    """Choose the sizes.

    Args:
      free_bytes: VRAM that this process may still take.
    Raises:
      EngineError: what was asked for contradicts itself, the model, or the memory.
    """
    wanted_context = _wanted_context(shape, model)
    batch_size = model.batch_size or BATCH_SIZE_DEFAULT
    if model.cache_tokens is not None:
        cache_tokens = _asked_cache(wanted_context, model, model.cache_tokens)
    else:
        useful = useful_cache_tokens(wanted_context, model)
        cache_tokens = _fitting_cache(shape, model, useful, free_bytes)
    prefill_tokens = min(PREFILL_TOKENS_MAX, cache_tokens)  # one chunk is tried while loading
    if batch_size > prefill_tokens:
        if model.batch_size is not None:
            raise EngineError(
                f"batch_size must be at most {prefill_tokens} with exllamav2 and a cache of"
                f" {cache_tokens} tokens, got {batch_size}",
                ExitCode.CONFIG,
            )
        batch_size = prefill_tokens
    context_length = min(wanted_context, cache_tokens)
    if model.context_length is not None and context_length < model.context_length:
        raise EngineError(
            f"context_length {model.context_length} needs a cache of as many tokens, and only"
            f" {cache_tokens} fit into the {free_bytes / GIB:.2f} GiB of VRAM that may be used"
            f" ({_shares(shape, model)}): lower context_length, or cache_bits"
            f" ({model.cache_bits}), or raise vram_fraction ({model.vram_fraction})",
            ExitCode.OUT_OF_MEMORY,
        )
    return Plan(context_length, batch_size, cache_tokens, prefill_tokens, model.cache_bits)


def _wanted_context(shape: ModelShape, model: ModelConfig) -> int:
    if model.context_length is None:
        return shape.context_length
    if model.context_length > shape.context_length:
        raise EngineError(
            f"context_length is {model.context_length}, but the model was made for"
            f" {shape.context_length} tokens",
            ExitCode.CONFIG,
        )
    return model.context_length


def _asked_cache(wanted_context: int, model: ModelConfig, asked: int) -> int:
    if model.context_length is not None and pages_up(asked) < wanted_context:
        raise EngineError(
            f"cache_tokens is {asked}, less than one request of context_length"
            f" {model.context_length}: raise the one or lower the other",
            ExitCode.CONFIG,
        )
    return pages_up(asked)


def _fitting_cache(
    shape: ModelShape, model: ModelConfig, useful_tokens: int, free_bytes: int
) -> int:
    left = free_bytes - shape.weight_bytes - working_bytes(shape)
    fitting = int(left / cache_token_bytes(shape, model.cache_bits)) // PAGE_TOKENS * PAGE_TOKENS
    if fitting < PAGE_TOKENS:
        raise EngineError(
            f"the model does not fit: {_shares(shape, model)}, and"
            f" {free_bytes / GIB:.2f} GiB of VRAM may be used (vram_fraction"
            f" {model.vram_fraction})",
            ExitCode.OUT_OF_MEMORY,
        )
    return min(fitting, useful_tokens)


def _shares(shape: ModelShape, model: ModelConfig) -> str:
    return (
        f"weights take {shape.weight_bytes / GIB:.2f} GiB, working memory"
        f" {working_bytes(shape) / GIB:.2f} GiB, the cache"
        f" {cache_token_bytes(shape, model.cache_bits):.0f} bytes a token"
    )
