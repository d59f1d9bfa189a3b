"""A stand-in for NVIDIA's library where there is no GPU: for tests, put before it on PYTHONPATH.

What it tells stands in ``gpus.json`` beside it, and is read anew each time. The processes on its
GPUs are real: each worker of the process that asks holds as much as the file says, from its first
moment to its last, and for ``late_s`` longer.
"""

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil

NVML_TEMPERATURE_GPU = 0
NVML_TEMPERATURE_THRESHOLD_SLOWDOWN = 1
NVML_TEMPERATURE_THRESHOLD_GPU_MAX = 3

_FILE = Path(__file__).with_name("gpus.json")
_ended_s: dict[int, float] = {}  # worker -> since when it is not seen any more
_seen: set[int] = set()
_told: dict[str, Any] = {}


class NVMLError(Exception):
    """Whatever NVML has to complain of."""


def nvmlInit() -> None:  # noqa: N802  # the library's name
    _told.clear()
    _told.update(json.loads(_FILE.read_text()))
    time.sleep(_told.get("hang_s", 0))
    if _told.get("error"):
        raise NVMLError(_told["error"])


def nvmlShutdown() -> None:  # noqa: N802
    return


def nvmlDeviceGetCount() -> int:  # noqa: N802
    return len(_told["gpus"])


def nvmlDeviceGetHandleByIndex(index: int) -> dict[str, Any]:  # noqa: N802
    gpu: dict[str, Any] = _told["gpus"][index]
    if gpu.get("error"):
        raise NVMLError(gpu["error"])
    return gpu


def nvmlDeviceGetName(gpu: dict[str, Any]) -> str:  # noqa: N802
    return str(gpu.get("name", "a stand-in"))


def nvmlDeviceGetUUID(gpu: dict[str, Any]) -> str:  # noqa: N802
    return str(gpu.get("uuid", "GPU-0"))


def nvmlDeviceGetMemoryInfo(gpu: dict[str, Any]) -> SimpleNamespace:  # noqa: N802
    living = _workers()
    ending = [pid for pid, at_s in _ended_s.items() if time.time() < at_s + gpu.get("late_s", 0)]
    taken = gpu.get("worker_bytes", 0) * (len(living) + len(ending)) + gpu.get("foreign_bytes", 0)
    return SimpleNamespace(total=gpu["total_bytes"], free=gpu["total_bytes"] - taken)


def nvmlDeviceGetComputeRunningProcesses(gpu: dict[str, Any]) -> list[SimpleNamespace]:  # noqa: N802
    if gpu.get("processes") == "none":  # another pid namespace: none is seen
        return []
    held = None if gpu.get("processes") == "unknown" else gpu.get("worker_bytes", 0)
    return [SimpleNamespace(pid=pid, usedGpuMemory=held) for pid in _workers()]


def nvmlDeviceGetTemperature(gpu: dict[str, Any], _sensor: int) -> int:  # noqa: N802
    return int(_or_unsupported(gpu, "temperature_c"))


def nvmlDeviceGetTemperatureThreshold(gpu: dict[str, Any], threshold: int) -> int:  # noqa: N802
    if threshold == NVML_TEMPERATURE_THRESHOLD_GPU_MAX:
        return int(_or_unsupported(gpu, "temperature_max_c"))
    return int(_or_unsupported(gpu, "slowdown_c"))


def nvmlDeviceGetMarginTemperature(gpu: dict[str, Any]) -> int:  # noqa: N802
    return int(_or_unsupported(gpu, "margin_c"))


def _or_unsupported(gpu: dict[str, Any], key: str) -> Any:
    if key not in gpu:
        raise NVMLError("Not Supported")
    return gpu[key]


def _workers() -> list[int]:
    living = [child.pid for child in psutil.Process(os.getpid()).children() if _is_worker(child)]
    for pid in _seen - set(living):
        _ended_s.setdefault(pid, time.time())
    _seen.update(living)
    return living


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "rbee.engine" in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
