"""What can be wrong when a model is loaded, and whose fault it is."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from rbee.config import ModelConfig
from rbee.engine.exllamav2.files import read_files
from rbee.engine.exllamav2.library import choose_gpu
from rbee.engine.exllamav2.sizing import plan
from rbee.errors import EngineError, ExitCode
from rbee.vram import GIB, ModelShape, cache_token_bytes
from tests.engine.exllamav2.conftest import Driver
from tests.engine.exllamav2.folder import CONTEXT, write_folder

SHAPE = ModelShape(
    layers=32, heads=32, kv_heads=8, head_dim=128, hidden=4096, intermediate=14336,
    vocabulary=128256, context_length=131072, weight_bytes=16 * GIB,
)  # fmt: skip


def model(**more: Any) -> Any:
    return ModelConfig(ref="file:model", engine="exllamav2", **more)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("config.json", "config.json: No such file"),
        ("tokenizer.json", "tokenizer.json: No such file"),
        ("model.safetensors", "no .safetensors file"),
    ],
)
def test_a_missing_file_is_named(driver: Driver, broken: str, said: str) -> None:
    (driver.path / broken).unlink()
    with pytest.raises(EngineError, match=said) as caught:
        driver.load()
    assert caught.value.exit_code is ExitCode.DATA
    driver.engine.close()


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.touch()
    with pytest.raises(EngineError, match="reads folders"):
        read_files(path)


@pytest.mark.parametrize("content", ["{", "[]", "\x00"])
def test_a_broken_json_file_is_named(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(EngineError, match=r"config\.json: ") as caught:
        read_files(folder)
    assert caught.value.exit_code is ExitCode.DATA


@pytest.mark.parametrize("missing", ["num_hidden_layers", "vocab_size", "architectures"])
def test_a_config_without_a_needed_key_is_broken_data(driver: Driver, missing: str) -> None:
    path = driver.path / "config.json"
    config = json.loads(path.read_text())
    del config[missing]
    path.write_text(json.dumps(config))
    with pytest.raises(EngineError, match="exllamav2 failed in reading") as caught:
        driver.load()
    assert caught.value.exit_code is ExitCode.DATA


def test_an_unknown_architecture_is_refused_and_not_loaded_as_a_llama(driver: Driver) -> None:
    write_folder(driver.path, architectures=["NovelForCausalLM"])
    with pytest.raises(
        EngineError, match="does not know the architecture 'NovelForCausalLM'"
    ) as caught:
        driver.load()
    assert caught.value.exit_code is ExitCode.DATA


def test_broken_attention_of_exllamav2_is_never_used(driver: Driver) -> None:
    driver.load()
    assert driver.engine._loaded.model.config.no_sdpa


@pytest.mark.parametrize(("bits", "name"), [(16, "FP16"), (8, "Q8"), (6, "Q6"), (4, "Q4")])
def test_cache_bits_choose_the_cache(fakes: Any, folder: Path, bits: int, name: str) -> None:
    driver = Driver(folder)
    driver.load(cache_bits=bits)
    assert driver.info.detail["cache"].startswith(f"{name} ")
    expected = "ExLlamaV2Cache" if bits == 16 else f"ExLlamaV2Cache_Q{bits}"
    assert type(driver.engine._loaded.generator.cache).__name__ == expected


def test_a_cache_that_does_not_fit_is_out_of_memory_with_figures(fakes: Any, folder: Path) -> None:
    driver = Driver(folder)
    with pytest.raises(EngineError, match=r"cache of 4194304 tokens.*139.0 GiB") as caught:
        driver.load(cache_tokens=4 << 20)
    assert caught.value.exit_code is ExitCode.OUT_OF_MEMORY
    driver.engine.close()


def test_the_fraction_of_the_vram_is_a_cap_that_torch_holds(fakes: Any, folder: Path) -> None:
    Driver(folder).load(vram_fraction=0.4)
    assert fakes.cuda.fraction == pytest.approx(0.4)


def test_what_the_supervisor_has_reserved_is_a_cap_that_torch_holds(
    fakes: Any, folder: Path
) -> None:
    driver = Driver(folder)
    spec = dataclasses.replace(driver.spec(vram_fraction=0.4), vram_bytes_max=20 * GIB)
    driver.engine.load(spec, lambda _phase, _fraction: None)
    total = fakes.cuda.mem_get_info(0)[1]
    assert fakes.cuda.fraction == pytest.approx(20 * GIB / total)
    driver.engine.close()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"count": 0}, "CUDA finds no such GPU"),
        ({"count": 2}, "expected to see one GPU, found 2"),
    ],
)
def test_a_gpu_that_is_not_there_is_an_error_that_says_so(
    fakes: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, change: Any, said: str
) -> None:
    for name, value in change.items():
        monkeypatch.setattr(fakes.cuda, name, value)
    with pytest.raises(EngineError, match=said):
        Driver(folder).load(gpu=3)


def test_a_torch_without_cuda_is_an_error_that_says_how_to_mend_it(
    fakes: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fakes.version, "cuda", None)
    with pytest.raises(EngineError, match="built without CUDA: install a CUDA build") as caught:
        Driver(folder).load()
    assert caught.value.exit_code is ExitCode.CONFIG


@pytest.mark.parametrize("missing", ["torch", "exllamav2", "tokenizers"])
def test_a_package_that_is_not_there_is_an_error_that_says_how_to_mend_it(
    fakes: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    with monkeypatch.context() as patch:  # undone before the fakes are taken away
        patch.setitem(sys.modules, missing, None)
        with pytest.raises(EngineError, match=r"pip install 'rbee\[exllamav2\]'") as caught:
            Driver(folder).load()
    assert caught.value.exit_code is ExitCode.CONFIG


def test_another_version_of_exllamav2_is_refused(
    fakes: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import exllamav2  # noqa: PLC0415 - the fake, from here on

    monkeypatch.setattr(exllamav2, "__version__", "0.3.1")
    with pytest.raises(EngineError, match=r"must be 0\.3\.2, found 0\.3\.1"):
        Driver(folder).load()


def test_an_architecture_that_flash_attn_cannot_do_is_refused(
    fakes: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import exllamav2  # noqa: PLC0415 - the fake, from here on

    monkeypatch.setattr(exllamav2.attn, "has_flash_attn_with_softcap", False)
    write_folder(folder, architectures=["Gemma2ForCausalLM"])
    with pytest.raises(EngineError, match=r"cannot use paged attention with flash-attn 2\.8\.3"):
        Driver(folder).load()


@pytest.mark.parametrize(
    ("before", "gpu", "after"),
    [
        (None, 2, "2"),
        ("3,5", 1, "5"),
        ("GPU-aa, GPU-bb", 0, "GPU-aa"),
    ],
)
def test_a_worker_sees_the_gpu_of_its_model_alone(before: Any, gpu: int, after: Any) -> None:
    environ = {} if before is None else {"CUDA_VISIBLE_DEVICES": before}
    choose_gpu(environ, gpu)
    assert environ == {"CUDA_VISIBLE_DEVICES": after, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


@pytest.mark.parametrize("listed", ["", "3"])
def test_a_gpu_that_the_operator_hides_is_an_error(listed: str) -> None:
    with pytest.raises(EngineError, match="lists"):
        choose_gpu({"CUDA_VISIBLE_DEVICES": listed}, 1)


# --- sizes


def test_the_cache_takes_what_is_left_and_no_more_than_the_batch_can_use() -> None:
    big = plan(SHAPE, model(context_length=8192, batch_size=16), 130 * GIB)
    assert big.cache_tokens == 8192 * 16
    small = plan(SHAPE, model(context_length=8192, batch_size=64), 40 * GIB)
    assert small.cache_tokens % 256 == 0
    assert 8192 <= small.cache_tokens < 8192 * 64
    room = 40 * GIB - SHAPE.weight_bytes
    assert small.cache_tokens * cache_token_bytes(SHAPE, 16) < room


def test_fewer_bits_make_room_for_more_tokens() -> None:
    tokens = [plan(SHAPE, model(cache_bits=bits), 40 * GIB).cache_tokens for bits in (16, 8, 6, 4)]
    assert tokens == sorted(tokens)
    assert tokens[-1] > 3 * tokens[0]


@pytest.mark.parametrize(("bits", "expected"), [(16, 131072), (8, 69632 + 4096), (4, 36864 + 4096)])
def test_bytes_of_a_cached_token(bits: int, expected: Any) -> None:
    """32 layers of 8 heads of 128 numbers, keys and values; and a layer unpacked."""
    assert cache_token_bytes(SHAPE, bits) == expected


def test_attention_without_flash_attn_is_left_its_room() -> None:
    shapes = [dataclasses.replace(SHAPE, has_flash_attn=has) for has in (True, False)]
    with_it, without = (plan(shape, model(), 40 * GIB).cache_tokens for shape in shapes)
    one_request = 2 * 8 * 128 * 2 * SHAPE.context_length  # keys and values of one layer
    assert (with_it - without) * cache_token_bytes(SHAPE, 16) >= 2 * one_request


def test_a_context_that_was_left_open_is_what_fits() -> None:
    chosen = plan(SHAPE, model(), 30 * GIB)
    assert chosen.context_length == chosen.cache_tokens < SHAPE.context_length


@pytest.mark.parametrize(
    ("asked", "free_gib", "said", "exit_code"),
    [
        ({"context_length": 200_000}, 130, "was made for 131072", ExitCode.CONFIG),
        ({"context_length": 8192, "cache_tokens": 4096}, 130, "less than one", ExitCode.CONFIG),
        ({"batch_size": 4000}, 130, "at most 2048", ExitCode.CONFIG),
        ({"batch_size": 300, "cache_tokens": 256}, 130, "at most 256", ExitCode.CONFIG),
        ({"context_length": 131_072}, 30, "only .* fit into the 30.00 GiB", ExitCode.OUT_OF_MEMORY),
        ({}, 17, "the model does not fit", ExitCode.OUT_OF_MEMORY),
    ],
)
def test_what_cannot_be_is_refused_with_figures(
    asked: Any, free_gib: Any, said: str, exit_code: ExitCode
) -> None:
    with pytest.raises(EngineError, match=said) as caught:
        plan(SHAPE, model(**asked), free_gib * GIB)
    assert caught.value.exit_code is exit_code


def test_a_cache_of_less_than_a_chunk_makes_the_chunk_smaller() -> None:
    chosen = plan(SHAPE, model(cache_tokens=300), 130 * GIB)
    assert (chosen.cache_tokens, chosen.prefill_tokens) == (512, 512)
    assert chosen.context_length == 512


def test_a_small_context_is_kept_to_the_token(driver: Driver) -> None:
    driver.load(context_length=100)
    assert driver.info.context_length == 100
    assert driver.engine._loaded.generator.max_chunk_size % 256 == 0


def test_the_models_own_context_is_taken_where_none_is_asked_for(driver: Driver) -> None:
    assert driver.load().context_length == CONTEXT
