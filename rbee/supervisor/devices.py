"""The GPUs of this box, through NVML. The only file that knows it.

Rule 1: NVML that is missing or broken means "no GPU", with the reason; it never ends rbee.
Rule 2: what one driver or card does not tell is None, and the rest is still told.
Rule 3: calls may block in the driver: who has a loop to run asks in a thread.
"""

import contextlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

import pynvml

# At the start nobody waits longer for a driver.
FIRST_SURVEY_S_MAX: Final = 15.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Gpu:
    index: int
    name: str
    memory_total_bytes: int
    memory_free_bytes: int
    uuid: str = ""
    temperature_c: int | None = None
    temperature_limit_c: int | None = None  # from which on the card slows itself down, or stops
    held_bytes: Mapping[int, int] | None = None  # by pid; None: NVML does not tell


@dataclass(frozen=True, slots=True)
class GpuSurvey:
    """What was found. ``problem`` says why nothing was, "" if it was."""

    gpus: tuple[Gpu, ...]
    problem: str


def survey_gpus() -> GpuSurvey:
    """Ask NVML which GPUs there are. Opens and closes it; no CUDA context is made."""
    try:
        pynvml.nvmlInit()
    except Exception as error:  # noqa: BLE001  # whatever a foreign library finds to raise
        return GpuSurvey((), f"NVML: {error}")
    gpus: list[Gpu] = []
    problem = "NVML: there is no GPU"
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                gpus.append(_gpu(index))
            except Exception as error:  # noqa: BLE001  # one that is lost does not hide the others
                problem = f"NVML: GPU {index}: {error}"
    except Exception as error:  # noqa: BLE001
        problem = f"NVML: {error}"
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()
    return GpuSurvey(tuple(gpus), "" if gpus else problem)


def survey_within(
    timeout_s: float = FIRST_SURVEY_S_MAX, survey: Callable[[], GpuSurvey] = survey_gpus
) -> GpuSurvey:
    """Survey where nobody else waits, but not for ever. A hung call is left to its thread."""
    found: list[GpuSurvey] = []
    asking = threading.Thread(target=lambda: found.append(survey()), daemon=True)
    try:
        asking.start()
    except RuntimeError as error:
        return GpuSurvey((), f"NVML: {error}")
    asking.join(timeout_s)
    return found[0] if found else GpuSurvey((), f"NVML: no answer within {timeout_s:g} s")


def gpu_index(number: int, visible: str | None, survey: GpuSurvey) -> int | None:
    """Which GPU, as NVML counts, a worker sees as its number ``number``.

    Args:
      visible: CUDA_VISIBLE_DEVICES, in which ``number`` counts; None: not set.

    Returns:
      None: that cannot be told.
    """
    if visible is None:
        return number if any(gpu.index == number for gpu in survey.gpus) else None
    listed = [each.strip() for each in visible.split(",") if each.strip()]
    if number >= len(listed):
        return None
    meant = listed[number]
    for gpu in survey.gpus:
        if meant == str(gpu.index) or (meant.startswith("GPU-") and gpu.uuid.startswith(meant)):
            return gpu.index
    return None


def _gpu(index: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    temperature = _optional(
        lambda: int(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU))
    )
    return Gpu(
        index,
        _text(pynvml.nvmlDeviceGetName(handle)),
        int(memory.total),
        int(memory.free),
        uuid=_optional(lambda: _text(pynvml.nvmlDeviceGetUUID(handle))) or "",
        temperature_c=temperature,
        temperature_limit_c=_temperature_limit(handle, temperature),
        held_bytes=_optional(lambda: _held_bytes(handle)),
    )


def _temperature_limit(handle: object, temperature_c: int | None) -> int | None:
    """The highest that is meant for running; else where it slows down, as far as it tells."""
    ask = pynvml.nvmlDeviceGetTemperatureThreshold
    limit = _optional(
        lambda: int(ask(handle, pynvml.NVML_TEMPERATURE_THRESHOLD_GPU_MAX))
    ) or _optional(lambda: int(ask(handle, pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN)))
    if limit:
        return limit
    # Later cards tell how far it is to their limit instead.
    margin = _optional(lambda: int(pynvml.nvmlDeviceGetMarginTemperature(handle)))
    return None if margin is None or temperature_c is None else temperature_c + margin


def _held_bytes(handle: object) -> dict[int, int] | None:
    """None: it does not know of one of them how much it holds (WSL, MIG, some containers)."""
    processes = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
    if any(each.usedGpuMemory is None for each in processes):
        return None
    return {int(each.pid): int(each.usedGpuMemory) for each in processes}


def _optional(ask: Callable[[], T]) -> T | None:
    try:
        return ask()
    except Exception:  # noqa: BLE001  # not supported, no permission, or an older library
        return None


def _text(said: object) -> str:
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
