"""The GPUs, their driver, and whether we may use them."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rbee.cli.checks.finding import Finding

if TYPE_CHECKING:
    from rbee.supervisor.devices import Gpu

_PCI: Final = Path("/sys/bus/pci/devices")
_DRIVER: Final = Path("/proc/driver/nvidia/version")
_DEVICES: Final = Path("/dev")
_NVIDIA: Final = "0x10de"
_DISPLAY_CLASS: Final = "0x03"
_BOARDS_TOLD_MAX: Final = 8


def has_gpu() -> bool:
    """Whether NVML shows a GPU."""
    from rbee.supervisor.devices import survey_within

    return bool(survey_within().gpus)


def check_gpu() -> Finding:
    """What NVML shows, and if nothing, whether there is a board that it ought to show."""
    from rbee.supervisor.devices import survey_within

    survey = survey_within()
    boards = [f"{gpu.index}: {gpu.name}, {_gib(gpu.memory_free_bytes)} of "
              f"{_gib(gpu.memory_total_bytes)} GiB free" for gpu in survey.gpus]  # fmt: skip
    if not boards:
        return judge_absence(survey.problem, count_boards(_PCI))
    closed = [
        str(device)
        for device in sorted(_DEVICES.glob("nvidia[0-9]*"))
        if not os.access(device, os.R_OK | os.W_OK)
    ]
    if closed:
        return Finding(
            "gpu",
            "fail",
            f"{', '.join(closed)} may not be opened by uid {os.geteuid()}",
            "add the user to the group that owns the device (ls -l /dev/nvidia*), and log in again",
        )
    return judge_boards(survey.gpus, "; ".join(boards[:_BOARDS_TOLD_MAX]))


def judge_boards(gpus: "Sequence[Gpu]", boards: str) -> Finding:
    """What the boards do not tell, or are too hot for."""
    hot = [
        f"GPU {gpu.index} has {gpu.temperature_c} C, its limit is {gpu.temperature_limit_c} C"
        for gpu in gpus
        if gpu.temperature_c is not None
        and gpu.temperature_limit_c is not None
        and gpu.temperature_c >= gpu.temperature_limit_c
    ]
    if hot:
        return Finding("gpu", "warn", f"{boards}; {'; '.join(hot)}", "look at fans and air")
    if any(gpu.held_bytes is None for gpu in gpus):
        return Finding(
            "gpu",
            "warn",
            f"{boards}; NVML does not tell what each process holds, so rbee goes by free memory",
            "usual under WSL, with MIG, and in containers; there a container may be given the"
            " host's process ids (--pid=host)",
        )
    return Finding("gpu", "ok", boards)


def judge_absence(problem: str, boards: int) -> Finding:
    """Args:
    problem: why NVML shows no GPU.
    boards: NVIDIA display devices on the PCI bus.
    """
    if boards == 0:
        return Finding("gpu", "ok", f"no NVIDIA GPU ({problem}); GGUF models run on the CPU")
    return Finding(
        "gpu",
        "fail",
        f"{boards} NVIDIA GPUs are in the box, but {problem}",
        "install NVIDIA's driver, or reboot if it was just updated; nvidia-smi must work. "
        "In a container, start it with access to the GPUs",
    )


def check_driver() -> Finding:
    """The kernel's NVIDIA driver."""
    if not _DRIVER.is_file():
        boards = count_boards(_PCI)
        if boards == 0:
            return Finding("driver", "ok", "no NVIDIA driver, and no board that needs one")
        return Finding(
            "driver", "warn", "no NVIDIA driver in the kernel", "install it; or modprobe nvidia"
        )
    text = _DRIVER.read_text("utf-8", "replace")
    version = re.search(r"\b[0-9]{3}\.[0-9]+(?:\.[0-9]+)?\b", text)
    return Finding("driver", "ok", version[0] if version else text.splitlines()[0])


def count_boards(devices: Path) -> int:
    """NVIDIA display devices among the PCI devices."""
    return sum(
        _read(device / "vendor") == _NVIDIA and _read(device / "class").startswith(_DISPLAY_CLASS)
        for device in (devices.iterdir() if devices.is_dir() else ())
    )


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace").strip()
    except OSError:
        return ""


def _gib(count: int) -> str:
    return f"{count / 1024**3:.1f}"
