"""What tests on a GPU need: the GPU, the packages, the built extension, and models.

`RBEE_TEST_GPU_MODEL` may name a folder in HF or EXL2 form; bee-tiny is the default.
"""

import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from rbee.config import ModelConfig
from rbee.engine.engine import LoadSpec
from rbee.engine.exllamav2 import ExLlamaV2Engine
from rbee.engine.exllamav2.prepare import prepare_extension
from rbee.errors import EngineError
from tests.engine.driving import Driven
from tests.engine.exllamav2.folder import write_folder

REPOSITORY = Path(__file__).resolve().parents[2]
EXPORT = REPOSITORY / "tools" / "bee_tiny" / "export_hf.py"
MODEL = "RBEE_TEST_GPU_MODEL"


@functools.cache
def missing() -> str:
    """Why nothing here can run; "" if it can. Builds the extension: minutes, the first time."""
    packages = [name for name in ("torch", "exllamav2", "tokenizers") if find_spec(name) is None]
    if packages:
        return f"{', '.join(packages)} not installed: pip install 'rbee[exllamav2]'"
    asked = "import torch; print(torch.cuda.is_available())"
    found = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, timeout=120, check=False
    )
    if "True" not in found.stdout:
        return "no GPU that torch can use"
    try:
        prepare_extension(print)
    except EngineError as error:
        return str(error)
    return ""


@pytest.fixture(scope="session", autouse=True)
def gpu() -> None:
    if missing():
        pytest.skip(missing())


@pytest.fixture(scope="session")
def bee_tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bee-tiny in HF form, made of the shipped weights; or the model that was named."""
    if named := os.environ.get(MODEL):
        return Path(named)
    absent = [name for name in ("gguf", "safetensors") if find_spec(name) is None]
    if absent:
        pytest.skip(f"{', '.join(absent)} not installed, to export bee-tiny with")
    folder = tmp_path_factory.mktemp("bee-tiny")
    subprocess.run([sys.executable, str(EXPORT), "--out", str(folder)], check=True, timeout=120)
    return folder


@pytest.fixture(scope="session")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights that has no end token, as the seam's contract wants it."""
    folder = tmp_path_factory.mktemp("endless") / "model"
    write_folder(folder, hidden_size=256, intermediate_size=768, eos_token_id=None)
    (folder / "generation_config.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"bos_token": "<|begin|>"}')
    return folder


def spec_of(folder: Path, **model: Any) -> LoadSpec:
    chosen = ModelConfig(ref=f"file:{folder}", engine="exllamav2", **model)
    return LoadSpec(chosen, folder, threads=1)


@pytest.fixture(scope="module")
def loaded(bee_tiny: Path) -> Iterator[Driven]:
    engine = ExLlamaV2Engine()
    yield Driven(engine, spec_of(bee_tiny, batch_size=32))
    engine.close()


@pytest.fixture
def driven(loaded: Driven) -> Iterator[Driven]:
    """bee-tiny on the GPU, idle."""
    yield loaded
    loaded.cancel_all()
