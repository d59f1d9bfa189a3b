"""How much of a GPU's memory a model takes. Pure arithmetic, the same for supervisor and worker.

The supervisor reserves by it before a worker is started, the worker chooses its cache by it.
Source of the bytes per element: exllamav2 0.3.2, cache.py; of what else is needed: model.py,
`load_autosplit`, which forwards one whole chunk through every module while it loads.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from rbee.config import ModelConfig

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

# CUDA's own share of a process, which torch does not count. Assumed, not measured: what NVML says
# takes its place once the worker is loaded.
CONTEXT_BYTES: Final = 512 * MIB

# By so much a prediction may be wrong before a worker meets its cap.
MARGIN: Final = 1.1


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
class Demand:
    """What a worker needs of a GPU's memory, CUDA's own share included."""

    least_bytes: int  # with less it cannot load
    most_bytes: int  # more it would not use, or may not


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


def useful_cache_tokens(context_length: int, model: ModelConfig) -> int:
    """A cache that holds more serves nobody."""
    batch_size = model.batch_size or BATCH_SIZE_DEFAULT
    return pages_up(max(context_length * batch_size, PREFILL_TOKENS_MAX))


def pages_up(tokens: int) -> int:
    return -(-tokens // PAGE_TOKENS) * PAGE_TOKENS


def cap_bytes(total_bytes: int, model: ModelConfig, granted_bytes: int | None) -> int:
    """What torch may take in a worker: its share of the GPU, within what it was granted.

    Args:
      granted_bytes: by the supervisor; None: nobody has counted.
    """
    share = int(total_bytes * model.vram_fraction)
    return share if granted_bytes is None else min(share, granted_bytes)


def predict(
    shape: ModelShape | None, weight_bytes: int, model: ModelConfig, total_bytes: int
) -> Demand:
    """What a worker for ``model`` will take.

    Args:
      shape: None: its configuration does not tell; then it may take all of its share.
      total_bytes: of the GPU.
    """
    limit = min(total_bytes, int(total_bytes * model.vram_fraction) + CONTEXT_BYTES)
    if shape is None:
        return Demand(weight_bytes + CONTEXT_BYTES, limit)
    token = cache_token_bytes(shape, model.cache_bits)
    context_length = min(model.context_length or shape.context_length, shape.context_length)
    least = shape.weight_bytes + working_bytes(shape)
    most = shape.weight_bytes + working_bytes(_without_flash_attn(shape))
    if model.cache_tokens is not None:
        cache = pages_up(model.cache_tokens) * token
        least += int(cache) - SLACK_BYTES  # nobody insists on that one
    else:
        cache = useful_cache_tokens(context_length, model) * token
        least += int(pages_up(model.context_length or 1) * token)
    return Demand(least + CONTEXT_BYTES, min(limit, int(MARGIN * (most + cache)) + CONTEXT_BYTES))


def _without_flash_attn(shape: ModelShape) -> ModelShape:
    return ModelShape(
        shape.layers, shape.heads, shape.kv_heads, shape.head_dim, shape.hidden,
        shape.intermediate, shape.vocabulary, shape.context_length, shape.weight_bytes,
        has_flash_attn=False,
    )  # fmt: skip


def shape_from_config(config: Mapping[str, Any], weight_bytes: int) -> ModelShape | None:
    """Read a ``config.json``. None: it lacks what is needed, or says nonsense."""
    nested = config.get("text_config")
    told = {**config, **nested} if isinstance(nested, dict) else config
    hidden, heads = _count(told, "hidden_size"), _count(told, "num_attention_heads")
    head_dim = _count(told, "head_dim") or (hidden // heads if heads else 0)
    found = (
        _count(told, "num_hidden_layers"),
        heads,
        _count(told, "num_key_value_heads") or heads,
        head_dim,
        hidden,
        _count(told, "intermediate_size"),
        _count(told, "vocab_size"),
        _count(told, "max_position_embeddings"),
    )
    return None if 0 in found else ModelShape(*found, weight_bytes=weight_bytes)


def _count(told: Mapping[str, Any], key: str) -> int:
    """0: not there, or none that a model could have."""
    value = told.get(key)
    return value if type(value) is int and 0 < value < 1 << 32 else 0
