"""Files that are not what they should be, and libraries that are not the pinned one."""

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rbee.config import ModelConfig
from rbee.engine.engine import LoadSpec
from rbee.engine.llamacpp import LlamaCppEngine, abi
from rbee.engine.llamacpp.gguf import Gguf, read_gguf
from rbee.engine.llamacpp.model import cell_bytes, plan_cache
from rbee.errors import EngineError, ExitCode
from tests.engine.tiny_gguf import encode, write_tiny_gguf

WEIGHT = np.ones((4, 32), np.float32)
ONE_KEY = encode({"general.architecture": "llama"}, {"w": WEIGHT})


def load(path: Path | None) -> None:
    engine = LlamaCppEngine()
    try:
        engine.load(
            LoadSpec(ModelConfig(ref="file:model.gguf", engine="llamacpp"), path, threads=1),
            lambda phase, fraction: None,
        )
    finally:
        engine.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf").read_bytes()


def test_header_is_read(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf", context_length=300)
    gguf = read_gguf(path)
    assert gguf.metadata["general.architecture"] == "llama"
    assert gguf.number("context_length", 0) == 300
    assert gguf.number("absent", 7) == 7
    assert gguf.file_bytes == path.stat().st_size
    assert gguf.matrix_types == {0}
    half = write_tiny_gguf(tmp_path / "half.gguf", has_half_matrices=True)
    assert read_gguf(half).matrix_types == {1}  # the norms, which have one axis, stay as they are
    assert cell_bytes(gguf) == 2 * 2 * 32 * 2  # layers, keys and values, width, float16


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="No such file") as failure:
        load(tmp_path / "absent.gguf")
    assert failure.value.exit_code is ExitCode.DATA


def test_folder_in_place_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot be read") as failure:
        load(tmp_path)
    assert failure.value.exit_code is ExitCode.DATA


def test_no_path_at_all() -> None:
    with pytest.raises(EngineError) as failure:
        load(None)
    assert failure.value.exit_code is ExitCode.CONFIG


BROKEN = {
    "empty": (b"", "0 bytes"),
    "text": (b"not a model, but some text", "not a GGUF"),
    "old version": (ONE_KEY[:4] + struct.pack("<I", 1) + ONE_KEY[8:], "version 1"),
    "other byte order": (ONE_KEY[:4] + struct.pack(">I", 3) + ONE_KEY[8:], "version 50331648"),
    "too many tensors": (ONE_KEY[:8] + struct.pack("<Q", 1 << 62) + ONE_KEY[16:], "tensors"),
    "too many keys": (ONE_KEY[:16] + struct.pack("<Q", 1 << 40) + ONE_KEY[24:], "keys"),
    "array of 2^30": (
        b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 4, 1 << 30),
        "array items",
    ),
    "string past the end": (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 500) + b"x" * 99, "500 bytes"),
    "array in an array": (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 9, 1), "type 9"),
    "five dimensions": (
        b"GGUF" + struct.pack("<IQQQ1sI5QIQ", 3, 1, 0, 1, b"w", 5, 1, 1, 1, 1, 1, 0, 0),
        "5 dimensions",
    ),
    "product that overflows 64 bits": (
        b"GGUF" + struct.pack("<IQQQ1sI2QIQ", 3, 1, 0, 1, b"w", 2, 1 << 33, 1 << 33, 0, 0),
        "cut off",
    ),
    "zero dimension": (
        b"GGUF" + struct.pack("<IQQQ1sI2QIQ", 3, 1, 0, 1, b"w", 2, 0, 4, 0, 0),
        "shape",
    ),
    "unknown tensor type": (
        b"GGUF" + struct.pack("<IQQQ1sI1QIQ", 3, 1, 0, 1, b"w", 1, 4, 999, 0),
        "type 999",
    ),
    "cut weights": (ONE_KEY[:-64], "cut off"),
}


@pytest.mark.parametrize(("raw", "said"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_header_is_refused_before_c_code_sees_it(
    tmp_path: Path, raw: bytes, said: str
) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(raw)
    with pytest.raises(EngineError, match=said) as failure:
        read_gguf(path)
    assert failure.value.exit_code is ExitCode.DATA
    assert str(path) in str(failure.value)


def test_file_cut_anywhere_is_refused(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "cut.gguf"
    for length in range(0, len(whole) - 1, 997):
        path.write_bytes(whole[:length])
        with pytest.raises(EngineError) as failure:
            read_gguf(path)
        assert failure.value.exit_code is ExitCode.DATA


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_bytes_in_the_header_give_a_header_or_an_error(
    tmp_path: Path, whole: bytes, data: st.DataObject
) -> None:
    raw = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, 12_000))] = data.draw(st.integers(0, 255))
    path = tmp_path / "noise.gguf"
    path.write_bytes(raw)
    try:
        read_gguf(path)
    except EngineError as error:
        assert error.exit_code is ExitCode.DATA  # noqa: PT017  either way is right


def test_sound_header_without_a_model_is_refused_by_the_library(tmp_path: Path) -> None:
    path = tmp_path / "odd.gguf"
    path.write_bytes(ONE_KEY)
    with pytest.raises(EngineError, match="cannot be loaded") as failure:
        load(path)
    assert failure.value.exit_code is ExitCode.DATA


def test_unknown_architecture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "odd.gguf"
    path.write_bytes(encode({"general.architecture": "abacus"}, {"w": WEIGHT}))
    with pytest.raises(EngineError, match="abacus"):
        load(path)


def test_missing_shard_is_named(tmp_path: Path) -> None:
    path = tmp_path / "big-00001-of-00002.gguf"
    path.write_bytes(encode({"general.architecture": "llama", "split.count": 2}, {"w": WEIGHT}))
    with pytest.raises(EngineError, match="big-00002-of-00002"):
        read_gguf(path)
    misnamed = tmp_path / "misnamed.gguf"
    misnamed.write_bytes(path.read_bytes())
    with pytest.raises(EngineError, match="00001-of-00002"):
        read_gguf(misnamed)


GGUF = Gguf(
    {
        "general.architecture": "llama",
        "llama.embedding_length": 4096,
        "llama.block_count": 32,
        "llama.attention.head_count": 32,
        "llama.attention.head_count_kv": 8,
    },
    file_bytes=5 << 30,
)
CELL = 128 << 10  # bytes


def plan(left_gib: float, **config: int) -> tuple[int, int]:
    model = ModelConfig(ref="file:x.gguf", **config)  # type: ignore[arg-type]
    planned = plan_cache(model, 131_072, GGUF, int(left_gib * (1 << 30)))
    assert planned.cache_bytes <= left_gib * (1 << 30)
    return planned.context_length, planned.batch_size


def test_cell_of_an_8b_model_is_128_kib() -> None:
    assert cell_bytes(GGUF) == CELL


def test_what_nobody_set_gives_way_to_the_memory() -> None:
    assert plan(64) == (4096, 16)  # 8 GiB of cache at most
    assert plan(8) == (4096, 8)
    assert plan(1) == (4096, 1)
    assert plan(0.25) == (1024, 1)


def test_what_was_set_is_kept() -> None:
    assert plan(64, context_length=32_768) == (32_768, 2)
    assert plan(64, context_length=32_768, batch_size=8) == (32_768, 8)
    assert plan(64, batch_size=2) == (32_768, 2)
    assert plan(64, cache_tokens=16_384, context_length=8192, batch_size=16) == (8192, 2)


def test_what_was_set_and_does_not_fit_is_refused_with_figures() -> None:
    with pytest.raises(EngineError, match="32768 MiB of memory, 8192 MiB are left") as failure:
        plan(8, context_length=32_768, batch_size=8)
    assert failure.value.exit_code is ExitCode.OUT_OF_MEMORY


def test_model_larger_than_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf")
    monkeypatch.setattr("rbee.engine.llamacpp.model._memory_left", lambda: 100_000)
    with pytest.raises(EngineError, match="memory") as failure:
        load(path)
    assert failure.value.exit_code is ExitCode.OUT_OF_MEMORY


def test_layout_is_checked_against_the_librarys_defaults() -> None:
    library = abi.load_library()
    params = library.llama_context_default_params().params
    abi.check_layout(params, abi.CONTEXT_DEFAULTS)
    params.n_seq_max = 77
    with pytest.raises(EngineError, match="n_seq_max must be 1, is 77") as failure:
        abi.check_layout(params, abi.CONTEXT_DEFAULTS)
    assert failure.value.exit_code is ExitCode.CONFIG


def test_other_version_of_the_wheel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2027.1.1")
    with pytest.raises(EngineError, match=r"must be 2026\.10\.11549, is 2027\.1\.1"):
        abi._library_path()


WARNS = """
import ctypes, sys
from rbee.engine.llamacpp import abi
library = abi.load_library()
log = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
said, data = log(), ctypes.c_void_p()
library.llama_log_get(ctypes.byref(said), ctypes.byref(data))
lines = (2, b"chatter"), (3, b"careful"), (5, b"more"), (1, b"detail"), (5, b"more detail")
for level, text in lines:
    said(level, text, None)
"""


def test_library_speaks_on_stderr_from_warnings_up() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", WARNS], capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stderr.splitlines() == ["llama.cpp: careful", "llama.cpp: more"]
    assert ran.stdout == ""
