"""Python, the packages, and the libraries of the engines."""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from rbee.cli.checks.finding import Finding

PYTHON_MIN: Final = (3, 11)
IMPORT_TIMEOUT_S: Final = 60.0  # a cold disk

_REQUIREMENT: Final = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*([^;]*)(;.*)?")
_CLAUSE: Final = re.compile(r"\s*(>=|<=|==|!=|<|>)\s*([0-9][0-9.]*)")
_EXLLAMAV2_NEEDS: Final = ("exllamav2", "torch", "tokenizers", "ninja")
_CUDA_HOME: Final = Path("/usr/local/cuda")


def check_python(version: tuple[int, int, int] = sys.version_info[:3]) -> Finding:
    found = ".".join(map(str, version))
    if version >= PYTHON_MIN:
        return Finding("python", "ok", found)
    wanted = ".".join(map(str, PYTHON_MIN))
    return Finding("python", "fail", found, f"install Python {wanted} or newer")


def check_packages() -> Finding:
    """The installed versions against the ranges that rbee declares."""
    requirements = _declared_requirements()
    found = {name: _installed_version(name) for name, _ in requirements}
    return judge_packages(requirements, found)


def judge_packages(
    requirements: Sequence[tuple[str, str]], found: Mapping[str, str | None]
) -> Finding:
    """Args:
    requirements: names with their ranges, such as ``>=1,<2``.
    found: installed versions; None for a package that is missing.
    """
    if not requirements:
        return Finding(
            "packages", "warn", "rbee's requirements are not on record", "install rbee with pip"
        )
    wrong = [
        (f"{name} {version or 'missing'} (needs {wanted})", f"{name}{wanted}")
        for name, wanted in requirements
        if not (version := found[name]) or not is_in_range(version, wanted)
    ]
    if not wrong:
        return Finding("packages", "ok", f"{len(requirements)} packages in their ranges")
    mend = " ".join(f"'{requirement}'" for _, requirement in wrong)
    told = ", ".join(problem for problem, _ in wrong)
    return Finding("packages", "fail", told, f"{sys.executable} -m pip install {mend}")


def is_in_range(version: str, wanted: str) -> bool:
    """Whether a version satisfies clauses such as ``>=1.2,<2``.

    Compares the numbers only: enough for the ranges of `pyproject.toml`, which name releases.
    """
    have = _numbers(version)
    for sign, text in _CLAUSE.findall(wanted):
        limit = _numbers(text)
        width = max(len(have), len(limit))
        left, right = (each + (0,) * (width - len(each)) for each in (have, limit))
        holds = {
            ">=": left >= right,
            "<=": left <= right,
            "==": left == right,
            "!=": left != right,
            "<": left < right,
            ">": left > right,
        }
        if not holds[sign]:
            return False
    return True


def check_llamacpp() -> Finding:
    """Whether the CPU engine's library can be imported, in a process that may die of it."""
    return _check_import("xllamacpp", "llamacpp")


def check_exllamav2(has_gpu: bool) -> Finding:
    """The GPU engine's libraries, its compiler, and whether its CUDA code is built."""
    missing = [
        name for name in ("exllamav2", "torch", "tokenizers", "ninja") if not _is_there(name)
    ]
    if missing and not has_gpu:
        return Finding("exllamav2", "ok", "not installed; only of use with an NVIDIA GPU")
    if missing:
        return Finding(
            "exllamav2",
            "warn",
            f"missing: {', '.join(missing)}; models in EXL2 or HF form cannot be served",
            f"{sys.executable} -m pip install 'rbee[exllamav2]'",
        )
    finding = _check_import("torch", "exllamav2")
    if finding.verdict != "ok":
        return finding
    attention = "with" if _is_there("flash_attn") else "without"
    versions = f"exllamav2 {_installed_version('exllamav2')}, torch {_installed_version('torch')}"
    return Finding("exllamav2", "ok", f"{versions}, {attention} flash-attn")


def check_cuda_code(has_gpu: bool) -> Finding:
    """Whether exllamav2's CUDA code is built, or could be."""
    name = "cuda code"
    if not has_gpu or not _is_there("exllamav2"):
        return Finding(name, "ok", "not needed without an NVIDIA GPU and exllamav2")
    if _is_there("exllamav2_ext"):
        return Finding(name, "ok", "prebuilt with exllamav2")
    from rbee.engine.exllamav2.prepare import cache_root

    built = sorted(folder.name for folder in cache_root().glob("exllamav2-*"))
    if built:
        return Finding(name, "ok", f"built: {', '.join(built)}")
    compiler = _nvcc()
    if compiler is None or shutil.which("g++") is None:
        lacks = "nvcc" if compiler is None else "g++"
        return Finding(
            name,
            "warn",
            f"not built, and {lacks} is not there to build it",
            "install the CUDA toolkit of torch's CUDA version and g++; then rbee doctor --prepare",
        )
    return Finding(name, "warn", f"not built; {compiler} can", "rbee doctor --prepare")


def _nvcc() -> str | None:
    home = Path(os.environ.get("CUDA_HOME") or _CUDA_HOME)
    return shutil.which("nvcc") or shutil.which("nvcc", path=str(home / "bin"))


def _check_import(module: str, name: str) -> Finding:
    """Import in a child: a library built for another CPU ends the process that loads it."""
    mend = f"{sys.executable} -m pip install --force-reinstall {module}"
    if not _is_there(module):
        return Finding(name, "fail", f"{module} is not installed", mend)
    try:
        child = subprocess.run(  # noqa: S603 (our own interpreter, no input from outside)
            [sys.executable, "-c", f"import {module}"],
            capture_output=True,
            timeout=IMPORT_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Finding(name, "fail", f"{module} took over {IMPORT_TIMEOUT_S:.0f} s to import", mend)
    if child.returncode < 0:
        death = signal.Signals(-child.returncode).name
        return Finding(name, "fail", f"importing {module} ends the process with {death}", mend)
    if child.returncode != 0:
        last = child.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        return Finding(name, "fail", f"{module} cannot be imported: {last}", mend)
    return Finding(name, "ok", f"{module} {_installed_version(module)}")


def _declared_requirements() -> list[tuple[str, str]]:
    """From the installed package's metadata; in a source tree, from its ``pyproject.toml``."""
    try:
        lines = importlib.metadata.requires("rbee") or []
    except importlib.metadata.PackageNotFoundError:
        project = Path(__file__).parents[3] / "pyproject.toml"
        if not project.is_file():
            return []
        lines = tomllib.loads(project.read_text("utf-8"))["project"]["dependencies"]
    matches = [_REQUIREMENT.fullmatch(line.strip()) for line in lines]
    return [(m[1], m[2].strip()) for m in matches if m and "extra" not in (m[3] or "")]


def _installed_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _is_there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _numbers(version: str) -> tuple[int, ...]:
    leading = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
    return tuple(int(part) for part in leading[0].split(".")) if leading else ()
