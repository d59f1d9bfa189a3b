"""What NVML tells, what it does not, and whatever it raises: over a stand-in for its library.

`test_the_real_library_...` hold the same for the real one, where there is a GPU.
"""

import importlib.util
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rbee.supervisor import devices
from rbee.supervisor.devices import Gpu, GpuSurvey, gpu_index, survey_gpus, survey_within
from rbee.vram import GIB

STAND_IN = Path(__file__).parents[1] / "e2e" / "fake_nvml" / "pynvml.py"
GPU = {"total_bytes": 80 * GIB, "uuid": "GPU-a", "temperature_c": 40, "temperature_max_c": 87}

Tell = Callable[..., None]


@pytest.fixture
def tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tell:
    """Has the stand-in tell that."""
    path = tmp_path / "pynvml.py"
    path.write_text(STAND_IN.read_text())
    spec = importlib.util.spec_from_file_location("stand_in", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(devices, "pynvml", module)

    def write(*gpus: dict[str, Any], **more: Any) -> None:
        (tmp_path / "gpus.json").write_text(json.dumps({"gpus": gpus, **more}))

    return write


def test_all_that_is_told_is_taken(tell: Tell) -> None:
    tell({**GPU, "foreign_bytes": 10 * GIB})
    [gpu] = survey_gpus().gpus
    assert gpu == Gpu(0, "a stand-in", 80 * GIB, 70 * GIB, "GPU-a", 40, 87, {})


def test_a_processes_memory_that_is_not_told_is_not_known(tell: Tell) -> None:
    tell({**GPU, "processes": "unknown"})
    [gpu] = survey_gpus().gpus
    assert gpu.held_bytes in ({}, None)  # without processes nothing is missing


@pytest.mark.parametrize(
    ("told", "limit"),
    [
        ({"temperature_c": 40, "temperature_max_c": 87}, 87),
        ({"temperature_c": 40, "slowdown_c": 92}, 92),
        ({"temperature_c": 40, "margin_c": 47}, 87),
        ({"temperature_c": 40}, None),
        ({"margin_c": 47}, None),
    ],
)
def test_the_limit_of_the_temperature_is_the_first_that_the_card_tells(
    tell: Tell, told: dict[str, int], limit: int | None
) -> None:
    tell({"total_bytes": GIB, **told})
    [gpu] = survey_gpus().gpus
    assert gpu.temperature_limit_c == limit


def test_a_gpu_that_is_lost_does_not_hide_the_others(tell: Tell) -> None:
    tell({**GPU, "error": "GPU is lost"}, {**GPU, "uuid": "GPU-b"})
    survey = survey_gpus()
    assert [gpu.index for gpu in survey.gpus] == [1]
    tell({**GPU, "error": "GPU is lost"})
    assert survey_gpus() == GpuSurvey((), "NVML: GPU 0: GPU is lost")


def test_a_library_that_raises_is_no_gpu_with_the_reason(tell: Tell) -> None:
    tell(error="Driver/library version mismatch")
    assert survey_gpus() == GpuSurvey((), "NVML: Driver/library version mismatch")
    tell({})  # nonsense inside of it
    assert survey_gpus() == GpuSurvey((), "NVML: GPU 0: 'total_bytes'")


def test_a_driver_that_hangs_at_the_start_is_not_waited_for() -> None:
    may_end = threading.Event()

    def hang() -> GpuSurvey:
        may_end.wait(30)
        return GpuSurvey((), "")

    survey = survey_within(0.05, hang)
    may_end.set()
    assert survey == GpuSurvey((), "NVML: no answer within 0.05 s")


@pytest.mark.parametrize(
    ("number", "visible", "found"),
    [
        (1, None, 1),
        (2, None, None),
        (0, "1", 1),
        (1, " 1 , 0", 0),
        (1, "1", None),
        (0, "GPU-b", 1),
        (0, "GPU-c", None),
        (0, "MIG-GPU-b/1/0", None),
        (0, "", None),
    ],
)
def test_cudas_numbers_are_those_of_the_list_that_it_was_given(
    number: int, visible: str | None, found: int | None
) -> None:
    gpus = (Gpu(0, "", 1, 1, "GPU-aa"), Gpu(1, "", 1, 1, "GPU-bb"))
    assert gpu_index(number, visible, GpuSurvey(gpus, "")) == found


@pytest.mark.gpu
def test_the_real_library_tells_what_the_books_need() -> None:
    survey = survey_gpus()
    if not survey.gpus:
        pytest.skip(f"no GPU: {survey.problem}")
    for gpu in survey.gpus:
        assert 0 <= gpu.memory_free_bytes <= gpu.memory_total_bytes
        assert gpu.uuid.startswith("GPU-")
        assert gpu.temperature_c is None or 0 < gpu.temperature_c < 120
        assert gpu.temperature_limit_c is None or 50 < gpu.temperature_limit_c < 150
        assert gpu.held_bytes is None or sum(gpu.held_bytes.values()) <= gpu.memory_total_bytes
