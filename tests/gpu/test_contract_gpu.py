"""The seam's contract, as every engine's: exllamav2 on a GPU, with random weights."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rbee.engine.engine import Engine, LoadSpec
from rbee.engine.exllamav2 import ExLlamaV2Engine
from tests.engine.driving import Driven
from tests.engine.test_contract import *  # noqa: F403 - the tests, for pytest to find
from tests.gpu.conftest import spec_of

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def contender(endless: Path) -> object:
    def made(_folder: Path) -> tuple[Engine, LoadSpec]:
        return ExLlamaV2Engine(), spec_of(endless, context_length=256, batch_size=4)

    return made


@pytest.fixture(scope="module")
def loaded(contender: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driven]:
    assert callable(contender)
    engine, spec = contender(tmp_path_factory.mktemp("model"))
    yield Driven(engine, spec)
    engine.close()
