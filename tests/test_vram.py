"""What a model takes of a GPU: the supervisor's prediction, and what the worker makes of it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.config import ModelConfig
from rbee.engine.exllamav2.sizing import plan
from rbee.errors import EngineError
from rbee.vram import (
    CONTEXT_BYTES,
    GIB,
    MIB,
    ModelShape,
    cache_token_bytes,
    cap_bytes,
    predict,
    shape_from_config,
    working_bytes,
)

CONFIG: dict[str, Any] = {
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "hidden_size": 4096, "intermediate_size": 14336, "vocab_size": 128256,
    "max_position_embeddings": 131072,
}  # fmt: skip
SHAPE = ModelShape(32, 32, 8, 128, 4096, 14336, 128256, 131072, 16 * GIB)


def model(**more: Any) -> ModelConfig:
    return ModelConfig(ref="file:model", engine="exllamav2", **more)


def test_a_configuration_is_read_as_exllamav2_reads_it() -> None:
    assert shape_from_config(CONFIG, 16 * GIB) == SHAPE
    assert shape_from_config({"text_config": CONFIG, "hidden_size": 1}, 16 * GIB) == SHAPE
    without = {key: CONFIG[key] for key in CONFIG if key != "num_key_value_heads"}
    assert shape_from_config(without, 0) == ModelShape(
        32, 32, 32, 128, 4096, 14336, 128256, 131072, 0
    )


@pytest.mark.parametrize("nonsense", [None, 0, -1, "32", 1.5, True, [], 1 << 40])
def test_a_configuration_with_nonsense_tells_nothing(nonsense: object) -> None:
    assert shape_from_config({**CONFIG, "num_hidden_layers": nonsense}, 0) is None


@pytest.mark.parametrize(("bits", "expected"), [(16, 2.0), (8, 1.0625), (6, 0.8125), (4, 0.5625)])
def test_a_cache_takes_what_its_bits_say_and_one_layer_unpacked(bits: int, expected: float) -> None:
    unpacked = 0 if bits == 16 else 2 * 8 * 128 * 2
    assert cache_token_bytes(SHAPE, bits) == 32 * 2 * 8 * 128 * expected + unpacked


def test_a_model_whose_configuration_does_not_tell_may_take_its_share() -> None:
    demand = predict(None, 5 * GIB, model(vram_fraction=0.5), 80 * GIB)
    assert demand.least_bytes == 5 * GIB + CONTEXT_BYTES
    assert demand.most_bytes == 40 * GIB + CONTEXT_BYTES


def test_a_cache_that_was_asked_for_bounds_what_is_taken() -> None:
    small = predict(SHAPE, 0, model(cache_tokens=4096), 80 * GIB)
    large = predict(SHAPE, 0, model(cache_tokens=65536), 80 * GIB)
    token = cache_token_bytes(SHAPE, 16)
    assert large.least_bytes - small.least_bytes == int(token * (65536 - 4096))
    assert 18 * GIB < small.least_bytes < small.most_bytes < 25 * GIB


shapes = st.builds(
    ModelShape,
    layers=st.integers(1, 100),
    heads=st.sampled_from([8, 32, 64]),
    kv_heads=st.sampled_from([1, 4, 8]),
    head_dim=st.sampled_from([64, 128, 256]),
    hidden=st.sampled_from([256, 4096, 8192]),
    intermediate=st.sampled_from([768, 14336]),
    vocabulary=st.sampled_from([2048, 128256]),
    context_length=st.sampled_from([512, 8192, 131072]),
    weight_bytes=st.integers(1, 150 * GIB),
)
models = st.builds(
    model,
    cache_tokens=st.none() | st.integers(256, 1 << 20),
    cache_bits=st.sampled_from([4, 6, 8, 16]),
    batch_size=st.none() | st.integers(1, 256),
    vram_fraction=st.floats(0.05, 1.0),
)


@given(shapes, models, st.integers(4, 200))
def test_the_worker_can_do_with_the_least_and_stays_below_the_most(
    shape: ModelShape, config: ModelConfig, gib: int
) -> None:
    total = gib * GIB
    demand = predict(shape, 0, config, total)
    assert demand.most_bytes <= total
    if demand.least_bytes > demand.most_bytes:
        return  # it is refused before it is started
    for granted in (demand.least_bytes, demand.most_bytes):
        cap = cap_bytes(total, config, granted)
        assert cap <= min(granted, total * config.vram_fraction)
        try:
            sizes = plan(shape, config, cap)
        except EngineError as error:  # what contradicts itself is found by the worker
            if "batch_size" in str(error):
                continue
            raise
        if config.cache_tokens is None:
            taken = sizes.cache_tokens * cache_token_bytes(shape, config.cache_bits)
            assert shape.weight_bytes + working_bytes(shape) + taken <= cap + MIB


def test_without_a_grant_the_share_is_the_cap() -> None:
    assert cap_bytes(100 * GIB, model(vram_fraction=0.4), None) == 40 * GIB
    assert cap_bytes(100 * GIB, model(vram_fraction=0.4), 90 * GIB) == 40 * GIB
    assert cap_bytes(100 * GIB, model(), 10 * GIB) == 10 * GIB
