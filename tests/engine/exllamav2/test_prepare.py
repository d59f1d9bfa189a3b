"""The build of exllamav2's CUDA code, with packages that compile nothing in its place."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from rbee.engine.exllamav2 import prepare
from rbee.engine.exllamav2.prepare import Facts, check_build, load_extension, prepare_extension
from rbee.errors import EngineError, ExitCode
from tests.engine.exllamav2.conftest import FAKES

# What `import exllamav2.ext` does in the child: it compiles into TORCH_EXTENSIONS_DIR.
COMPILES = """
import os, pathlib
folder = pathlib.Path(os.environ["TORCH_EXTENSIONS_DIR"]) / "exllamav2_ext"
folder.mkdir()
(folder / "a.o").touch()
archs = os.environ["TORCH_CUDA_ARCH_LIST"]
(folder / "exllamav2_ext.so").write_bytes(b"compiled for " + archs.encode())
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A child process finds the fake torch, and an exllamav2 whose import "compiles"."""
    packages = tmp_path / "packages"
    (packages / "exllamav2").mkdir(parents=True)
    (packages / "exllamav2" / "__init__.py").touch()
    (packages / "exllamav2" / "ext.py").write_text(COMPILES)
    (packages / "torch.py").write_text((FAKES / "torch.py").read_text())
    metadata = packages / "exllamav2-0.3.2.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: exllamav2\nVersion: 0.3.2\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(packages), *sys.path]))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delitem(sys.modules, "exllamav2_ext", raising=False)
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    monkeypatch.syspath_prepend(packages)
    return packages


@pytest.fixture
def torch(machine: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The fake torch in this process, as a worker imports it."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    import torch  # noqa: PLC0415 - the fake, from here on

    yield torch
    del sys.modules["torch"]


def test_a_build_is_published_whole_and_not_done_twice(machine: Path, torch: Any) -> None:
    said: list[str] = []
    prepare_extension(said.append)
    facts = prepare.facts_of(torch)
    assert facts.arch_list == ("9.0",)
    assert check_build(facts) == ""
    assert (facts.folder / "exllamav2_ext.so").read_bytes() == b"compiled for 9.0"
    assert {path.name for path in prepare.cache_root().iterdir()} == {facts.folder.name, "lock"}
    assert said[0].startswith("building for compute capability 9.0")
    said.clear()
    (machine / "exllamav2" / "ext.py").write_text("raise SystemExit('compiled again')")
    prepare_extension(said.append)
    assert said == [f"built already: {facts.folder}"]


def test_a_worker_without_a_build_ends_with_what_to_do(machine: Path, torch: Any) -> None:
    with pytest.raises(EngineError, match="rbee doctor --prepare") as caught:
        load_extension(torch)
    assert caught.value.exit_code is ExitCode.CONFIG


def test_a_library_that_cannot_be_loaded_is_named(machine: Path, torch: Any) -> None:
    prepare_extension(lambda _: None)
    with pytest.raises(EngineError, match=r"exllamav2_ext\.so cannot be loaded"):
        load_extension(torch)
    assert "exllamav2_ext" not in sys.modules


def test_a_build_for_another_gpu_is_not_loaded_and_is_built_anew(machine: Path, torch: Any) -> None:
    prepare_extension(lambda _: None)
    torch.cuda.capability = (8, 9)
    with pytest.raises(EngineError, match=r"the GPU has 8\.9"):
        load_extension(torch)
    source = machine / "torch.py"
    source.write_text(source.read_text().replace("capability = (9, 0)", "capability = (8, 9)"))
    prepare_extension(lambda _: None)
    assert check_build(prepare.facts_of(torch)) == ""


def test_a_compiler_error_is_shown_and_nothing_is_published(machine: Path, torch: Any) -> None:
    (machine / "exllamav2" / "ext.py").write_text("raise RuntimeError('nvcc: not found')")
    with pytest.raises(EngineError, match=r"(?s)cannot be compiled.*nvcc: not found") as caught:
        prepare_extension(lambda _: None)
    assert caught.value.exit_code is ExitCode.CONFIG
    assert check_build(prepare.facts_of(torch)).startswith("nothing is built")


def test_what_a_killed_build_left_behind_is_removed(machine: Path, torch: Any) -> None:
    left_over = prepare.cache_root() / "building-1"
    left_over.mkdir(parents=True)
    (left_over / "lock").touch()
    prepare_extension(lambda _: None)
    assert not left_over.exists()


def test_two_builds_at_once_are_refused(machine: Path) -> None:
    prepare.cache_root().mkdir(parents=True)
    with prepare._sole_builder(prepare.cache_root()), pytest.raises(EngineError, match="another"):
        prepare_extension(lambda _: None)


def test_a_build_that_takes_too_long_is_killed(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "BUILD_S_MAX", 0.2)
    monkeypatch.setattr(prepare, "TOLD_EVERY_S", 0.1)
    (machine / "exllamav2" / "ext.py").write_text("import time; time.sleep(60)")
    with pytest.raises(EngineError, match="took longer"):
        prepare_extension(lambda _: None)


def test_without_torch_the_error_says_how_to_install(machine: Path) -> None:
    (machine / "torch.py").write_text("raise ImportError('libcudart.so.13: cannot open')")
    with pytest.raises(EngineError, match=r"libcudart.*pip install 'rbee\[exllamav2\]'"):
        prepare_extension(lambda _: None)


def test_without_a_gpu_there_is_nothing_to_build_for(machine: Path) -> None:
    source = machine / "torch.py"
    source.write_text(source.read_text().replace("count = 1", "count = 0"))
    with pytest.raises(EngineError, match="no GPU"):
        prepare_extension(lambda _: None)


def test_a_prebuilt_extension_is_taken_as_it_is(machine: Path) -> None:
    (machine / "exllamav2_ext.py").touch()
    said: list[str] = []
    prepare_extension(said.append)
    assert said == ["exllamav2_ext came prebuilt with exllamav2"]


@pytest.mark.parametrize("change", ["mode", "json"])
def test_a_build_that_others_could_have_changed_or_that_is_broken_is_not_loaded(
    machine: Path, torch: Any, change: Any
) -> None:
    prepare_extension(lambda _: None)
    facts = prepare.facts_of(torch)
    if change == "mode":
        (facts.folder / "exllamav2_ext.so").chmod(0o777)
    else:
        (facts.folder / "built.json").write_text("{")
    assert "could be changed" in check_build(facts) or "cannot be read" in check_build(facts)


@pytest.mark.parametrize(
    ("capability", "built", "runs"),
    [
        ("9.0", ["9.0"], True),
        ("8.9", ["8.6"], True),
        ("8.6", ["8.9"], False),
        ("9.0", ["8.0"], False),
    ],
)
def test_code_runs_on_gpus_of_its_major_and_no_older_minor(
    capability: Any, built: Any, runs: Any
) -> None:
    assert prepare._runs_on(capability, built) is runs


def test_every_fact_stands_in_the_name_of_the_build() -> None:
    facts = Facts("0.3.2", "cpython-311", "2.11.0", "13.0", ("9.0",))
    assert facts.folder.name == "exllamav2-0.3.2-cpython-311-torch2.11.0-cu13.0"
    assert json.dumps(facts.arch_list) == '["9.0"]'
