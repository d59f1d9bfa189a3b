"""The GPUs of this box, through NVML. The only file that knows it.

NVML that is missing or broken means "no GPU", with the reason; it never ends the supervisor.
"""

import contextlib
from dataclasses import dataclass

import pynvml


@dataclass(frozen=True, slots=True)
class Gpu:
    index: int
    name: str
    memory_total_bytes: int
    memory_free_bytes: int


@dataclass(frozen=True, slots=True)
class GpuSurvey:
    """What was found. ``problem`` says why nothing was, "" if it was."""

    gpus: tuple[Gpu, ...]
    problem: str


def survey_gpus() -> GpuSurvey:
    """Ask NVML which GPUs there are. Opens and closes it; no CUDA context is made."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return GpuSurvey((), f"NVML: {error}")
    try:
        gpus = tuple(_gpu(index) for index in range(pynvml.nvmlDeviceGetCount()))
    except pynvml.NVMLError as error:
        return GpuSurvey((), f"NVML: {error}")
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()
    return GpuSurvey(gpus, "" if gpus else "NVML: there is no GPU")


def _gpu(index: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    name = pynvml.nvmlDeviceGetName(handle)
    text = name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
    return Gpu(index, text, int(memory.total), int(memory.free))
