"""The seam's contract, as every engine's: over the fake and over the real generator."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rbee.config import ModelConfig
from rbee.engine.engine import Engine, LoadSpec
from rbee.engine.exllamav2 import ExLlamaV2Engine
from tests.engine.driving import Driven
from tests.engine.exllamav2.folder import write_folder
from tests.engine.test_contract import *  # noqa: F403 - the tests, for pytest to find


@pytest.fixture
def contender(stand: str) -> object:
    assert stand

    def made(folder: Path) -> tuple[Engine, LoadSpec]:
        path = write_folder(folder / "model")
        model = ModelConfig(ref="file:m", engine="exllamav2", context_length=256, batch_size=4)
        return ExLlamaV2Engine(), LoadSpec(model, path, threads=1)

    return made


@pytest.fixture
def driven(contender: object, tmp_path: Path) -> Iterator[Driven]:
    assert callable(contender)
    engine, spec = contender(tmp_path)
    yield Driven(engine, spec)
    engine.close()
