"""exllamav2's CUDA code: built once, ahead of time, and never by a worker.

Its package compiles 45 files at the first import: minutes, without a sign of progress, under a
lock file that a killed process leaves behind for ever. So `prepare_extension` (``rbee doctor
--prepare``) builds it in a child process, into a folder whose name holds everything that the
result depends on, and a worker loads what is there or ends with a message that says so. Hence
the phase IMPORTING of a worker never compiles and needs no exception from the stall verdict.

Rule 1: a folder of a finished build is never changed; it appears whole, by a rename.
Rule 2: this file imports no torch: `torch` comes as an argument, or lives in the child.
"""

import fcntl
import importlib.machinery
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from rbee.engine.exllamav2.foreign import Foreign
from rbee.errors import EngineError, ExitCode

EXTENSION: Final = "exllamav2_ext"
BUILD_S_MAX: Final = 3600.0
FACTS_S_MAX: Final = 120.0
TOLD_EVERY_S: Final = 5.0
LOG_LINES_TOLD: Final = 15

_BUILT: Final = "built.json"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a build depends on."""

    exllamav2: str
    python: str
    torch: str
    cuda: str
    arch_list: tuple[str, ...]  # compute capabilities: ("9.0",)

    @property
    def folder(self) -> Path:
        """Where this build is, or will be. The GPUs it is for stand in it, not in its name."""
        name = f"exllamav2-{self.exllamav2}-{self.python}-torch{self.torch}-cu{self.cuda}"
        return cache_root() / name


def cache_root() -> Path:
    """Where builds are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "rbee" / "extensions"


def load_extension(torch: Foreign) -> None:
    """Import the built extension, so that exllamav2 finds it and compiles nothing.

    Raises:
      EngineError: CONFIG; it is not built, or not for this GPU.
    """
    if EXTENSION in sys.modules or importlib.util.find_spec(EXTENSION) is not None:
        return  # a prebuilt wheel of exllamav2 brings it along
    facts = facts_of(torch)
    library = facts.folder / f"{EXTENSION}.so"
    problem = check_build(facts)
    if problem:
        raise EngineError(
            f"exllamav2's CUDA code is not ready: {problem}; run `rbee doctor --prepare`",
            ExitCode.CONFIG,
        )
    loader = importlib.machinery.ExtensionFileLoader(EXTENSION, str(library))
    spec = importlib.util.spec_from_file_location(EXTENSION, library, loader=loader)
    assert spec is not None, "a spec with a loader is always made"
    try:
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
    except ImportError as error:
        raise EngineError(
            f"{library} cannot be loaded ({error}); delete its folder and run"
            " `rbee doctor --prepare`",
            ExitCode.CONFIG,
        ) from error
    sys.modules[EXTENSION] = module


def check_build(facts: Facts) -> str:
    """What is wrong with the build for ``facts``; "" if it can be loaded."""
    library = facts.folder / f"{EXTENSION}.so"
    try:
        built = json.loads((facts.folder / _BUILT).read_text("utf-8"))
        status = library.stat()
    except FileNotFoundError:
        return f"nothing is built for {facts.folder.name}"
    except (OSError, ValueError) as error:
        return f"{facts.folder} cannot be read: {error}"
    if status.st_uid not in (0, os.getuid()) or status.st_mode & 0o022:
        return f"{library} could be changed by other users"
    missing = [each for each in facts.arch_list if not _runs_on(each, built["arch_list"])]
    if missing:
        return f"it is built for compute capability {built['arch_list']}, the GPU has {missing[0]}"
    return ""


def facts_of(torch: Foreign) -> Facts:
    """What a build depends on, as seen by this process: its torch and its visible GPUs."""
    devices = range(torch.cuda.device_count())
    capabilities = {tuple(torch.cuda.get_device_capability(each)) for each in devices}
    return Facts(
        exllamav2=importlib.metadata.version("exllamav2").partition("+")[0],
        python=sysconfig.get_config_var("SOABI") or sys.implementation.cache_tag or "",
        torch=str(torch.__version__).partition("+")[0],
        cuda=str(torch.version.cuda),
        arch_list=tuple(f"{major}.{minor}" for major, minor in sorted(capabilities)),
    )


def prepare_extension(report: Callable[[str], None]) -> None:
    """Build exllamav2's CUDA code for this machine, if that is not done. Takes minutes.

    Args:
      report: takes one line at a time, for the operator.
    Raises:
      EngineError: CONFIG; what the build needs is missing, or the compiler failed.
    """
    if importlib.util.find_spec(EXTENSION) is not None:
        report(f"{EXTENSION} came prebuilt with exllamav2")
        return
    facts = _facts_of_child()
    if not facts.arch_list:
        raise EngineError("there is no GPU to build exllamav2's CUDA code for", ExitCode.CONFIG)
    root = cache_root()
    root.mkdir(parents=True, mode=0o700, exist_ok=True)
    with _sole_builder(root):
        problem = check_build(facts)
        if not problem:
            report(f"built already: {facts.folder}")
            return
        report(f"building for compute capability {', '.join(facts.arch_list)}: {problem}")
        for left_over in root.glob("building-*"):  # we hold the lock: nobody else builds
            shutil.rmtree(left_over)
        building = root / f"building-{os.getpid()}"
        building.mkdir(mode=0o700)
        _compile(building, facts, report)
        _publish(building, facts)
        report(f"built: {facts.folder}")


def _facts_of_child() -> Facts:
    program = (
        "import dataclasses, json, torch; from rbee.engine.exllamav2.prepare import facts_of;"
        " print(json.dumps(dataclasses.asdict(facts_of(torch))))"
    )
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=FACTS_S_MAX,
        check=False,
    )
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise EngineError(
            f"torch or exllamav2 cannot be used ({last[0]}): pip install 'rbee[exllamav2]'",
            ExitCode.CONFIG,
        )
    said = json.loads(done.stdout.strip().splitlines()[-1])
    return Facts(**{**said, "arch_list": tuple(said["arch_list"])})


def _compile(building: Path, facts: Facts, report: Callable[[str], None]) -> None:
    """Let exllamav2 compile itself by being imported, in a child process."""
    environ = {
        "TORCH_CUDA_ARCH_LIST": ";".join(facts.arch_list),
        **os.environ,
        "TORCH_EXTENSIONS_DIR": str(building),
    }
    log = building / "build.log"
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-c", "import exllamav2.ext"],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _watch(child, building / EXTENSION, report)
        finally:
            if child.poll() is None:
                os.killpg(child.pid, 9)  # the compilers too: they are in its session
                child.wait()
    if child.returncode != 0:
        tail = "\n".join(log.read_text("utf-8", "replace").splitlines()[-LOG_LINES_TOLD:])
        raise EngineError(
            f"exllamav2's CUDA code cannot be compiled (nvcc and g++ are needed, and CUDA_HOME if"
            f" nvcc is not on the PATH); the end of {log}:\n{tail}",
            ExitCode.CONFIG,
        )


def _watch(child: subprocess.Popen[bytes], objects: Path, report: Callable[[str], None]) -> None:
    told = -1
    for _ in range(int(BUILD_S_MAX / TOLD_EVERY_S)):
        try:
            child.wait(TOLD_EVERY_S)
        except subprocess.TimeoutExpired:
            compiled = len(list(objects.glob("*.o")))
            if compiled != told:
                report(f"compiled {compiled} files")
                told = compiled
        else:
            return
    raise EngineError(f"the build took longer than {BUILD_S_MAX:.0f} s", ExitCode.CONFIG)


def _publish(building: Path, facts: Facts) -> None:
    library = building / EXTENSION / f"{EXTENSION}.so"
    if not library.is_file():
        raise EngineError(f"exllamav2 was imported, but {library} is not there", ExitCode.CONFIG)
    whole = building / "whole"
    whole.mkdir(mode=0o700)
    shutil.move(library, whole / library.name)
    (whole / library.name).chmod(0o700)
    (whole / _BUILT).write_text(json.dumps(asdict(facts)), "utf-8")
    if facts.folder.exists():  # built for other GPUs
        facts.folder.rename(building / "replaced")
    whole.rename(facts.folder)
    shutil.rmtree(building)


@contextmanager
def _sole_builder(root: Path) -> Iterator[None]:
    """Hold the lock on builds; the kernel frees it when the process ends, however it ends."""
    with (root / "lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EngineError(
                f"another `rbee doctor --prepare` is building in {root}", ExitCode.CONFIG
            ) from None
        yield


def _runs_on(capability: str, arch_list: list[str]) -> bool:
    """Whether code for one of ``arch_list`` runs on a GPU: same major, not newer in the minor.

    Source: CUDA C++ programming guide, "Binary Compatibility".
    """
    major, minor = (int(part) for part in capability.split("."))
    built = [tuple(int(part) for part in each.split(".")) for each in arch_list]
    return any(each[0] == major and each[1] <= minor for each in built)
