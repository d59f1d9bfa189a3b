"""What is wrong with the box at the start is told in one line; it is no bug in rbee."""

import os
from pathlib import Path

import pynvml
import pytest

from rbee.config import ModelConfig, WorkerConfig
from rbee.errors import ConfigError, RunDirError
from rbee.supervisor import devices
from rbee.supervisor.bind import parse_bind
from rbee.supervisor.catalogue import plan_workers
from rbee.supervisor.run_dir import RunDir

NO_GPU = devices.GpuSurvey((), "")


def refuse(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_an_nvml_that_cannot_even_be_closed_means_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_UNKNOWN)

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 0)
    monkeypatch.setattr(pynvml, "nvmlShutdown", broken)
    assert devices.survey_gpus().problem == "NVML: there is no GPU"


@pytest.mark.parametrize(
    ("ref", "problem"),
    [
        ("file:/srv/" + "x" * 300, "File name too long"),
        ("file:~no-such-user/m.gguf", "cannot be looked at"),
    ],
)
def test_a_path_that_cannot_be_looked_at_is_an_operators_mistake(ref: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        plan_workers([ModelConfig(ref=ref, name="m")], WorkerConfig(), NO_GPU, 2)


def test_a_named_pipe_does_not_hold_the_start(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="neither a file nor a folder"):
        plan_workers([ModelConfig(ref=f"file:{tmp_path}/pipe")], WorkerConfig(), NO_GPU, 2)


def test_a_port_of_thousands_of_digits_is_refused_as_any_other() -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        parse_bind("127.0.0.1:" + "1" * 5000)


@pytest.mark.parametrize("call", ["ftruncate", "pwrite"])
def test_a_run_directory_on_a_full_disk_is_told_as_that(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(RunDirError, match="No space left on device"):
        RunDir(tmp_path / "run").__enter__()
    monkeypatch.undo()
    with RunDir(tmp_path / "run"):
        assert (tmp_path / "run" / "lock").read_text() == f"{os.getpid()}\n"
