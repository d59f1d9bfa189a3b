"""Builds and runs the load client in C, and gives its report.

Rule 1: the client is a process of its own, so what it takes is told apart from the servers.
Rule 2: every run has an end: the client's own times, and `GRACE_S` after them.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

SOURCES: Final = Path(__file__).parent / "load"
BUILD: Final = Path(__file__).parents[1] / "build"
BUILD_TIMEOUT_S: Final = 120.0
RUN_TIMEOUT_S: Final = 4000.0  # above all that the client's own limits allow

Option = str | float | bool
OnMark = Callable[[str], None]


class LoadError(Exception):
    """The client could not be built, or could not run."""


def build(target: str = "load") -> Path:
    """Make the client, if its sources are newer.

    Args:
      target: "load", or "load-checked" for one with sanitizers.
    """
    for tool in ("make", "cc"):
        if shutil.which(tool) is None:
            raise LoadError(f"the load client is C: {tool} is needed to build it, and is missing")
    command = ["make", "--silent", "-C", str(SOURCES), f"BUILD={BUILD}", f"{BUILD}/{target}"]
    made = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=BUILD_TIMEOUT_S
    )
    if made.returncode != 0:
        raise LoadError(f"{target} does not build:\n{made.stderr}")
    return BUILD / target


class LoadRun:
    """A client at work. `report` waits for it; leaving the context ends it."""

    def __init__(self, client: Path, mode: str, port: int, options: Mapping[str, Option]) -> None:
        command = [str(client), mode, "--port", str(port)]
        for name, value in options.items():
            flag = f"--{name.replace('_', '-')}"
            if value is True:
                command.append(flag)
            elif value is not False:
                command += [flag, str(value)]
        self._mode = mode
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def __enter__(self) -> "LoadRun":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def is_running(self) -> bool:
        return self._process.poll() is None

    def report(self, on_mark: OnMark | None = None) -> dict[str, Any]:
        """Wait for the end.

        Args:
          on_mark: called when the client says where it is: with "begin" and "end".
        """
        told = []
        assert self._process.stderr is not None, "it was started with this pipe"
        for line in self._process.stderr:
            name, _, what = line.rstrip("\n").partition(" ")
            if name != "mark":
                told.append(line)
            elif on_mark is not None:
                on_mark(what)
        printed, _ = self._process.communicate(timeout=RUN_TIMEOUT_S)
        if self._process.returncode != 0:
            code = self._process.returncode
            raise LoadError(f"load {self._mode} ended with exit code {code}: {''.join(told)}")
        found: dict[str, Any] = json.loads(printed)
        return found


def start(mode: str, port: int, **options: Option) -> LoadRun:
    """Start a load; it runs while other things are done."""
    return LoadRun(build(), mode, port, options)


def run(mode: str, port: int, on_mark: OnMark | None = None, **options: Option) -> dict[str, Any]:
    """Run a load to its end.

    Returns:
      Its report: see `load --help`, and the mode's own file.
    """
    with start(mode, port, **options) as load:
        return load.report(on_mark)


if __name__ == "__main__":  # build it, and pass the command line on
    sys.exit(subprocess.run([str(build()), *sys.argv[1:]], check=False).returncode)
