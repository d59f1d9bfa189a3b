"""Two stands for the adapter: a fake exllamav2, and the real generator on the CPU."""

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from rbee.ask import Sampling
from rbee.config import ModelConfig
from rbee.engine.engine import Job, LoadSpec
from rbee.engine.exllamav2 import ExLlamaV2Engine
from rbee.wire import Phase
from tests.engine.exllamav2 import folder as model_folder

FAKES = Path(__file__).parent / "fake_exllamav2"
FAKED = ("torch", "tokenizers", "exllamav2_ext", "exllamav2", "exllamav2.attn",
         "exllamav2.version", "exllamav2.generator", "exllamav2.generator.sampler")  # fmt: skip
BUILD_FOLDER = "RBEE_TEST_BUILD_DIR"  # keeps the compiled sampler between runs


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    return model_folder.write_folder(tmp_path / "model")


@pytest.fixture
def own_environ(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Loading chooses the GPU by the environment; that is undone."""
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch, own_environ: None) -> Any:
    """The fake packages in the place of the real ones, fresh for each test."""
    saved = {name: module for name, module in sys.modules.items()
             if name in FAKED or name.startswith("exllamav2")}  # fmt: skip
    for name in saved:
        del sys.modules[name]
    monkeypatch.syspath_prepend(FAKES)
    import torch  # noqa: PLC0415 - the fake, from here on

    yield torch
    for name in FAKED:
        module = sys.modules.pop(name, None)
        assert module is None or str(FAKES) in str(module.__file__)
    sys.modules.update(saved)


def missing_for_the_real_generator() -> Any:
    packages = [name for name in ("torch", "tokenizers", "exllamav2") if not find_spec(name)]
    return packages + [tool for tool in ("g++", "ninja") if shutil.which(tool) is None]


@pytest.fixture(scope="session")
def cpu_sampler(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """exllamav2's own sampling code, compiled for the CPU."""
    from tests.engine.exllamav2 import cpu_stand  # noqa: PLC0415 - needs torch

    kept = os.environ.get(BUILD_FOLDER)
    build_folder = Path(kept) if kept else tmp_path_factory.mktemp("cpu_sampler")
    found = find_spec("exllamav2")
    stand: Any = cpu_stand
    stand.build_extension(Path(str(found and found.origin)).parent, build_folder)
    return stand


STANDS = ["fake"] if missing_for_the_real_generator() else ["fake", "real"]


@pytest.fixture(params=STANDS)
def stand(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, own_environ: None
) -> Any:
    if request.param == "fake":
        request.getfixturevalue("fakes")
    else:
        request.getfixturevalue("cpu_sampler").install(monkeypatch)
    return request.param


class Driver:
    """An engine with what the tests of a stand keep asking of it."""

    def __init__(self, path: Path) -> None:
        self.engine: Any = ExLlamaV2Engine()  # tests look into it
        self.path = path
        self.told: list[tuple[Phase, float]] = []

    def phase(self) -> Phase:
        phase: Phase = self.engine.phase
        return phase

    def spec(self, **model: Any) -> LoadSpec:
        chosen = ModelConfig(ref="file:model", engine="exllamav2", **model)
        return LoadSpec(chosen, self.path, threads=2)

    def load(self, **model: Any) -> Any:
        self.info = self.engine.load(
            self.spec(**model), lambda phase, done: self.told.append((phase, done))
        )
        return self.info

    def job(
        self,
        job_id: int,
        prompt: str | list[int],
        tokens_max: int,
        *,
        json_schema: str | None = None,
        resumed: int = 0,
        cache_salt: bytes = b"",
        **sampling: Any,
    ) -> Any:
        ids = (
            self.engine.tokenizer.encode(prompt, special=False, bos=True)
            if isinstance(prompt, str)
            else prompt
        )
        sampling.setdefault("temperature", 0.0)
        self.engine.enqueue(
            Job(
                job_id,
                tuple(ids),
                tokens_max,
                Sampling(**sampling),
                json_schema,
                resumed,
                cache_salt,
            )
        )

    def run(self, steps_max: int = 20_000) -> Any:
        """Step until nothing is left: all results, by job."""
        by_job: dict[int, Any] = {}
        for _ in range(steps_max):
            if self.engine.phase.value == "idle":
                return by_job
            for result in self.engine.step():
                by_job.setdefault(result.job_id, []).append(result)
        raise AssertionError(f"not done after {steps_max} steps")

    def answer(self, prompt: str | list[int], tokens_max: int, **more: Any) -> Any:
        """Solo: the ids of one answer and how it ended."""
        self.job(1, prompt, tokens_max, **more)
        return ids_of(self.run()[1])


def ids_of(results: Any) -> Any:
    return [i for each in results for i in each.token_ids], results[-1].finish


@pytest.fixture
def driver(stand: str, folder: Path) -> Any:
    driver = Driver(folder)
    yield driver
    driver.engine.close()


@pytest.fixture
def loaded(driver: Driver) -> Any:
    driver.load()
    return driver
