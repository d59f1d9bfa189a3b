"""What each worker will need of a GPU's memory: from its model's files and settings."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rbee.config import ModelConfig
from rbee.supervisor.devices import GpuSurvey, gpu_index
from rbee.supervisor.worker import WorkerPlan
from rbee.vram import Demand, ModelShape, predict, shape_from_config

CONFIG_BYTES_MAX: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class GpuPlace:
    """Where a worker will be, and with how much."""

    gpu: int  # as NVML counts
    demand: Demand


def gpu_places(
    plans: Iterable[WorkerPlan], survey: GpuSurvey, visible: str | None
) -> dict[str, GpuPlace]:
    """By worker id, of those that use a GPU which NVML shows.

    Args:
      visible: CUDA_VISIBLE_DEVICES, in which ``gpu`` of a model counts; None: not set.
    """
    places: dict[str, GpuPlace] = {}
    for plan in plans:
        model = plan.welcome.model
        if not uses_gpu(model):
            continue
        index = gpu_index(model.gpu, visible, survey)
        gpu = next((each for each in survey.gpus if each.index == index), None)
        if gpu is not None:
            demand = _demand(model, plan.welcome.path, gpu.memory_total_bytes)
            places[plan.worker_id] = GpuPlace(gpu.index, demand)
    return places


def uncounted(plans: Iterable[WorkerPlan], places: Mapping[str, GpuPlace]) -> list[str]:
    """Which workers use a GPU, and cannot be booked on one."""
    return [
        plan.worker_id
        for plan in plans
        if uses_gpu(plan.welcome.model) and plan.worker_id not in places
    ]


def uses_gpu(model: ModelConfig) -> bool:
    """Whether a worker for a model, whose engine is settled, needs a GPU."""
    if model.engine == "synthetic":
        return model.synthetic.vram_bytes > 0
    return model.engine == "exllamav2"


def _demand(model: ModelConfig, path: str, total_bytes: int) -> Demand:
    if model.engine == "synthetic":
        wanted = model.synthetic.vram_bytes
        return Demand(wanted, min(wanted, total_bytes))
    shape, weight_bytes = read_shape(Path(path))
    return predict(shape, weight_bytes, model, total_bytes)


def read_shape(folder: Path) -> tuple[ModelShape | None, int]:
    """The shape of a model in HF or EXL2 form, None if it does not tell; the bytes of its weights.

    Broken files are for the worker to find, which says what is wrong with them.
    """
    try:
        weight_bytes = sum(each.stat().st_size for each in folder.glob("*.safetensors"))
        with (folder / "config.json").open("rb") as file:
            config = json.loads(file.read(CONFIG_BYTES_MAX))
    except (OSError, ValueError, RecursionError):
        return None, 0
    if not isinstance(config, dict):
        return None, weight_bytes
    return shape_from_config(config, weight_bytes), weight_bytes
