"""How much fits: context, batch and key/value cache of a model on a GPU. Pure arithmetic.

Rule: what the operator asked for is done or refused, never trimmed; what was left open is
      chosen here, and `Plan` says what came out.
Source of the bytes per element: exllamav2 0.3.2, cache.py; of what else is needed: model.py,
`load_autosplit`, which forwards one whole chunk through every module while it loads.
"""

from dataclasses import dataclass
from typing import Final

from rbee.config import ModelConfig
from rbee.errors import EngineError, ExitCode

PAGE_TOKENS: Final = 256  # of exllamav2's generator; cache and chunks are multiples of it
BATCH_SIZE_DEFAULT: Final = 64
# Prompt tokens of one step, all jobs together: what a step may hold up the others for.
PREFILL_TOKENS_MAX: Final = 2048

MIB: Final = 1 << 20
GIB: Final = 1 << 30

# Bytes of one cached number, its share of the scales included.
CACHE_ELEMENT_BYTES: Final = {16: 2.0, 8: 1.0625, 6: 0.8125, 4: 0.5625}

# What attention in plain torch copies out of pages at once, and its scores: see attention.py.
GATHER_BYTES_MAX: Final = 256 * MIB
SCORES_BYTES_MAX: Final = 256 * MIB

LOADER_RESERVE_BYTES: Final = (192 + 256) * MIB  # held free by autosplit while it loads
SLACK_BYTES: Final = 768 * MIB  # kernels loaded later, fragmentation, what is not counted
DEQUANTISED_ELEMENTS_MAX: Final = 512 * MIB  # exllamav2's max_dq_size, in half floats


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What of a model's configuration decides how much memory it takes."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    intermediate: int
    vocabulary: int
    context_length: int  # the model's own, in tokens
    weight_bytes: int  # of its files
    has_flash_attn: bool = True  # else keys and values are copied out of their pages


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
        useful = max(wanted_context * batch_size, PREFILL_TOKENS_MAX)
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


def cache_token_bytes(shape: ModelShape, bits: int) -> float:
    """Bytes of VRAM that one cached token takes, over all layers."""
    numbers = 2 * shape.kv_heads * shape.head_dim  # keys and values of a layer
    stored = shape.layers * numbers * CACHE_ELEMENT_BYTES[bits]
    # A quantised cache also holds one layer unpacked to half floats.
    return stored + (numbers * 2 if bits < 16 else 0)


def working_bytes(shape: ModelShape) -> int:
    """Bytes beside weights and cache: what one chunk needs on its way, and reserves."""
    rows = PREFILL_TOKENS_MAX
    logits = 2 * rows * shape.vocabulary * 2  # half floats, and a copy on the way
    states = 2 * rows * (4 * shape.hidden + 3 * shape.intermediate)
    attention = 4 * 2 * rows * shape.heads * shape.head_dim
    largest = shape.hidden * max(shape.intermediate, shape.vocabulary)
    dequantised = 2 * min(largest, DEQUANTISED_ELEMENTS_MAX)
    rope = 4 * shape.context_length * shape.head_dim * 2
    if not shape.has_flash_attn:  # one request's keys and values, or a group's; twice: a copy
        row = 4 * shape.context_length * shape.kv_heads * shape.head_dim
        attention += 2 * max(row, GATHER_BYTES_MAX) + 2 * SCORES_BYTES_MAX
    fixed = LOADER_RESERVE_BYTES + SLACK_BYTES
    return logits + states + attention + dequantised + rope + fixed


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
    if model.context_length is not None and _pages_up(asked) < wanted_context:
        raise EngineError(
            f"cache_tokens is {asked}, less than one request of context_length"
            f" {model.context_length}: raise the one or lower the other",
            ExitCode.CONFIG,
        )
    return _pages_up(asked)


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
    return min(fitting, _pages_up(useful_tokens))


def _shares(shape: ModelShape, model: ModelConfig) -> str:
    return (
        f"weights take {shape.weight_bytes / GIB:.2f} GiB, working memory"
        f" {working_bytes(shape) / GIB:.2f} GiB, the cache"
        f" {cache_token_bytes(shape, model.cache_bits):.0f} bytes a token"
    )


def _pages_up(tokens: int) -> int:
    return -(-tokens // PAGE_TOKENS) * PAGE_TOKENS
