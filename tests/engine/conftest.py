"""The engines that `test_contract.py` holds to the seam.

To add one: write a function that gives an engine and what it is to load, and put it into
`CONTENDERS`. What it loads must have a context length of 256, a batch size of 4, and answer
without ever ending by itself. A contender that cannot run on this machine calls `pytest.skip`
with the reason.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from rbee.config import ModelConfig, SyntheticConfig
from rbee.engine.engine import Engine, LoadSpec
from rbee.engine.llamacpp import LlamaCppEngine
from rbee.engine.synthetic import SyntheticEngine
from tests.engine.driving import Driven
from tests.engine.tiny_gguf import write_tiny_gguf

Contender = Callable[[Path], tuple[Engine, LoadSpec]]


def _llamacpp(folder: Path) -> tuple[Engine, LoadSpec]:
    path = write_tiny_gguf(folder / "tiny.gguf")
    model = ModelConfig(ref=f"file:{path}", engine="llamacpp", context_length=256, batch_size=4)
    return LlamaCppEngine(), LoadSpec(model, path, threads=1)


def _synthetic(_folder: Path) -> tuple[Engine, LoadSpec]:
    model = ModelConfig(
        ref="synthetic",
        engine="synthetic",
        context_length=256,
        batch_size=4,
        synthetic=SyntheticConfig(tokens_per_s=20_000),
    )
    return SyntheticEngine(), LoadSpec(model, None, threads=1)


CONTENDERS: Final[dict[str, Contender]] = {"llamacpp": _llamacpp, "synthetic": _synthetic}


@pytest.fixture(scope="module", params=list(CONTENDERS.values()), ids=list(CONTENDERS))
def contender(request: pytest.FixtureRequest) -> Contender:
    chosen: Contender = request.param
    return chosen


@pytest.fixture(scope="module")
def loaded(contender: Contender, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driven]:
    engine, spec = contender(tmp_path_factory.mktemp("model"))
    driven = Driven(engine, spec)
    yield driven
    engine.close()


@pytest.fixture
def driven(loaded: Driven) -> Iterator[Driven]:
    """A loaded engine, idle; used by all tests of a file."""
    yield loaded
    loaded.cancel_all()
