"""The supervisor's own part of each hierarchy: one folder, in which its workers' groups lie.

Rule 1: it lies below the group in which the supervisor itself was started, so that whatever
        limits the operator has set there hold for all.
Rule 2: what cannot be had is no error here. `Means` says what can, and why the rest cannot.
Rule 3: the name of the folder holds the supervisor's instance; no other is ever touched.
"""

import contextlib
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rbee.supervisor.cgroup.files import pids_in, read, write
from rbee.supervisor.cgroup.group import Group
from rbee.supervisor.cgroup.places import Place

# Where the supervisor goes when its own group must hold no process. Source: cgroup-v2.rst,
# "No Internal Process Constraint".
ASIDE: Final = "rbee-supervisor"

_OF_USE: Final = frozenset({"freezer", "memory", "cpu", "pids"})


@dataclass(frozen=True, slots=True)
class Means:
    """By what each thing is done: "cgroup2", "cgroup1", or "" when it cannot be."""

    kill: str = ""
    memory: str = ""
    cpu: str = ""
    pids: str = ""
    problems: tuple[str, ...] = ()


def folder_name(instance: str) -> str:
    return f"rbee-{instance}"


class Ground:
    """Open it before the first worker, close it after the last."""

    def __init__(self, instance: str, places: Sequence[Place]) -> None:
        self._name = folder_name(instance)
        self._places = places
        self._plots: dict[str, Path] = {}  # by what it is for
        self.means = Means()

    @property
    def folders(self) -> list[Path]:
        """Every folder that `open` may make; known before, so that none can be forgotten."""
        return [
            place.path / self._name
            for place in self._places
            if place.version == 2 or place.controllers & _OF_USE
        ]

    def open(self, controllers: Collection[str]) -> None:
        """Make the folders for ``controllers``, and for killing all of a worker at once.

        Args:
          controllers: of "memory", "cpu" and "pids": those that somebody needs. One more level
            of the cpu controller changes how time is shared out, so none is made unasked.
        """
        found: dict[str, str] = {}
        problems: list[str] = []
        for role in ("kill", *controllers):
            try:
                found[role] = self._open_one(role)
            except OSError as error:
                problems.append(f"{role}: {error.strerror or error}")
        self.means = Means(problems=tuple(problems), **found)

    def group(self, name: str) -> Group:
        """The group of one worker, not made yet."""
        return Group(dict.fromkeys(folder / name for folder in self._plots.values()))

    def close(self) -> list[Path]:
        """Take the folders away. Returns those that stay."""
        return Group(self.folders).remove()

    def _open_one(self, role: str) -> str:
        """Returns: which version does it. Raises: OSError: none can."""
        modern = next((place for place in self._places if place.version == 2), None)
        problem = OSError(2, "no cgroup hierarchy of that kind is mounted")
        if modern is not None and (role == "kill" or role in _available(modern.path)):
            try:
                return self._open_modern(role, modern.path)
            except OSError as error:
                problem = error
        wanted = "freezer" if role == "kill" else role
        for place in self._places:
            if place.version == 1 and wanted in place.controllers:
                folder = place.path / self._name
                folder.mkdir(exist_ok=True)
                self._plots[role] = folder
                return "cgroup1"
        raise problem

    def _open_modern(self, role: str, base: Path) -> str:
        folder = base / self._name
        folder.mkdir(exist_ok=True)
        if role == "kill":
            if not (folder / "cgroup.kill").exists():
                raise OSError(38, "the kernel is older than 5.14 and has no cgroup.kill")
        else:
            _enable(base, role)
            write(folder / "cgroup.subtree_control", f"+{role}")
        self._plots[role] = folder
        return "cgroup2"


def _available(path: Path) -> list[str]:
    return read(path / "cgroup.controllers").split()


def _enable(base: Path, controller: str) -> None:
    """Hand a controller on to the groups below ``base``.

    Raises:
      OSError: the group is not ours to divide, or others stand in it.
    """
    file = base / "cgroup.subtree_control"
    if controller in read(file).split():
        return
    with contextlib.suppress(OSError):
        write(file, f"+{controller}")
        return
    # Only groups without processes may hand on: we step aside, if we are alone here.
    others = [pid for pid in pids_in(base) if pid != os.getpid()]
    if others:
        raise OSError(
            16,
            f"{len(others)} other processes stand in {base}; give rbee a group of its own,"
            " such as by systemd-run --scope -p Delegate=yes",
        )
    aside = base / ASIDE
    aside.mkdir(exist_ok=True)
    write(aside / "cgroup.procs", str(os.getpid()))
    write(file, f"+{controller}")
