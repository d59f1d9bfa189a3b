"""What a `Ground` would be able to do here, told without making anything."""

import os
from collections.abc import Sequence
from typing import Final

from rbee.supervisor.cgroup.files import pids_in, read
from rbee.supervisor.cgroup.ground import Means
from rbee.supervisor.cgroup.places import Place

_NOT_HERE: Final = "no such controller"


def foresee(places: Sequence[Place]) -> Means:
    """By what each thing could be done. `Ground.open` may still find more in its way."""
    found: dict[str, str] = {}
    problems: list[str] = []
    for role in ("kill", "memory", "cpu", "pids"):
        by, problem = _foresee_one(role, places)
        found[role] = by
        if not by:
            problems.append(f"{role}: {problem}")
    return Means(problems=tuple(problems), **found)


def _foresee_one(role: str, places: Sequence[Place]) -> tuple[str, str]:
    problem = "no cgroup hierarchy of that kind is mounted"
    for place in sorted(places, key=lambda place: -place.version):
        wanted = "freezer" if role == "kill" else role
        if place.version == 1 and wanted not in place.controllers:
            continue
        problem_here = _problem_of(role, place)
        if not problem_here:
            return f"cgroup{place.version}", ""
        if problem_here != _NOT_HERE:
            problem = problem_here
    return "", problem


def _problem_of(role: str, place: Place) -> str:
    if not os.access(place.path, os.W_OK | os.X_OK):
        return f"{place.path} is not ours to divide"
    if place.version == 1 or role == "kill":
        return ""
    if role not in read(place.path / "cgroup.controllers").split():
        return _NOT_HERE
    if role in read(place.path / "cgroup.subtree_control").split():
        return ""
    # The root of all may hold processes and hand on; it alone has no file of its kind.
    others = [pid for pid in pids_in(place.path) if pid != os.getpid()]
    is_root = not (place.path / "cgroup.type").exists()
    if others and not is_root:
        return f"{len(others)} other processes stand in {place.path}"
    return ""
