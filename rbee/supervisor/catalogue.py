"""From a model's reference in the configuration to files, an engine and slots.

Rule: the engine is chosen once, here, and never changed in silence: a model that asks for a
GPU on a box without one is an error that says so.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from rbee.config import ModelConfig, WorkerConfig, model_name
from rbee.errors import ConfigError
from rbee.supervisor.devices import GpuSurvey
from rbee.supervisor.worker import WorkerPlan
from rbee.wire import Welcome

EMBEDDED: Final = Path(__file__).parent.parent / "models"
BEE_TINY: Final = EMBEDDED / "bee_tiny" / "bee-tiny.gguf"

GGUF_MAGIC: Final = b"GGUF"


def plan_workers(
    models: Iterable[ModelConfig], limits: WorkerConfig, gpus: GpuSurvey, cores: int
) -> list[WorkerPlan]:
    """What is to stand in each slot.

    Args:
      cores: of the CPU; shared among the workers that compute on it.

    Raises:
      ConfigError: a model cannot be served here; says which, why and what would do.
    """
    resolved = [_resolve(model, gpus) for model in models]
    on_cpu = sum(model.slots for model, _ in resolved if model.engine == "llamacpp")
    threads = max(1, cores // max(1, on_cpu))
    plans: list[WorkerPlan] = []
    taken: set[str] = set()
    for model, path in resolved:
        for number in range(model.slots):
            worker_id = _worker_id(model.name, number, taken)
            taken.add(worker_id)
            welcome = Welcome(model, path, model.threads or threads, limits.beat_s)
            plans.append(WorkerPlan(worker_id, welcome))
    return plans


def _resolve(model: ModelConfig, gpus: GpuSurvey) -> tuple[ModelConfig, str]:
    """The model with its name and engine settled, and the path of its files."""
    name = model_name(model)
    if model.ref == "synthetic":
        _expect_engine(model, name, "synthetic", "the reference 'synthetic'")
        if model.synthetic.vram_bytes:
            _expect_gpu(model, name, "synthetic.vram_bytes", gpus)
        return msgspec.structs.replace(model, name=name, engine="synthetic"), ""
    path = _path(model, name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ConfigError(f"model {name}: {path} holds no config.json: not a model in HF form")
        _expect_engine(model, name, "exllamav2", "a folder in HF or EXL2 form")
        _expect_gpu(model, name, "a folder in HF or EXL2 form", gpus)
        return msgspec.structs.replace(model, name=name, engine="exllamav2"), str(path)
    _expect_engine(model, name, "llamacpp", "a GGUF file")
    if not path.is_file():  # a named pipe would hold us for ever
        raise ConfigError(f"model {name}: {path} is neither a file nor a folder")
    try:
        with path.open("rb") as file:
            magic = file.read(len(GGUF_MAGIC))
    except OSError as error:
        raise ConfigError(f"model {name}: {path} cannot be read: {error.strerror}") from error
    if magic != GGUF_MAGIC:
        raise ConfigError(f"model {name}: {path} is not a GGUF file")
    return msgspec.structs.replace(model, name=name, engine="llamacpp"), str(path)


def _path(model: ModelConfig, name: str) -> Path:
    if model.ref == "bee-tiny":
        if not BEE_TINY.is_file():
            raise ConfigError("model bee-tiny: its file is missing from this installation of rbee")
        return BEE_TINY
    path = Path(model.ref.removeprefix("file:"))
    try:
        path = path.expanduser().absolute()
        is_there = path.exists()
    except (
        OSError,
        RuntimeError,
    ) as error:  # too long, closed to us, no ~user
        raise ConfigError(f"model {name}: {str(path)!r} cannot be looked at: {error}") from error
    if not is_there:
        raise ConfigError(
            f"model {name}: there is nothing at {str(path)!r}; a reference is bee-tiny, synthetic"
            " or file:PATH of a .gguf file or of a folder in HF or EXL2 form"
        )
    return path.resolve()


def _expect_gpu(model: ModelConfig, name: str, what: str, gpus: GpuSurvey) -> None:
    if model.gpu > max((gpu.index for gpu in gpus.gpus), default=-1):
        raise ConfigError(
            f"model {name}: {what} needs GPU {model.gpu}, and this box has"
            f" {len(gpus.gpus)} ({gpus.problem or 'all fine'}); for the CPU, use a .gguf file"
        )


def _expect_engine(model: ModelConfig, name: str, engine: str, what: str) -> None:
    if model.engine not in ("auto", engine):
        raise ConfigError(
            f"model {name}: the engine {model.engine} cannot serve {what}; the engine for it is"
            f" {engine}"
        )


def _worker_id(name: str, number: int, taken: set[str]) -> str:
    """A worker id from a model's name: lower case, digits and '-', and not yet taken."""
    stem = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:48] or "model"
    while f"{stem}-{number}" in taken:
        stem += "-x"
    return f"{stem}-{number}"
