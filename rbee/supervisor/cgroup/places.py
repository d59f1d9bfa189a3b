"""Where this process stands in each mounted hierarchy. Pure parsing, but for `own_places`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, Literal

_MOUNTS: Final = Path("/proc/self/mountinfo")
_OWN: Final = Path("/proc/self/cgroup")


@dataclass(frozen=True, slots=True)
class Place:
    """Our own group in one hierarchy."""

    path: Path
    version: Literal[1, 2]
    controllers: frozenset[str]  # of a version 1 hierarchy; version 2 says it in a file


def own_places() -> list[Place]:
    """Where this process stands now. Empty where there are no cgroups, or no /proc."""
    try:
        return find_places(
            _MOUNTS.read_text("utf-8", "surrogateescape"),
            _OWN.read_text("utf-8", "surrogateescape"),
        )
    except OSError:
        return []


def find_places(mountinfo: str, own: str) -> list[Place]:
    """Join what is mounted with where we are.

    Args:
      mountinfo: the text of ``/proc/self/mountinfo``; source: proc(5).
      own: the text of ``/proc/self/cgroup``; source: cgroups(7).
    """
    groups = _own_groups(own)
    places: list[Place] = []
    for line in mountinfo.splitlines():
        head, found, tail = line.partition(" - ")
        mount, kind = head.split(), tail.split()
        if not found or len(mount) < 5 or len(kind) < 3:
            continue
        if kind[0] == "cgroup2":
            place = _place(mount, groups.get(""), 2, frozenset())
        elif kind[0] == "cgroup":
            place = _place_of_version_1(mount, kind[2].split(","), groups)
        else:
            continue
        # What was mounted over, or twice, is taken once.
        if place is not None and all(place.path != other.path for other in places):
            places.append(place)
    return places


def _own_groups(own: str) -> dict[str, str]:
    """Our group by controller; by "" that of version 2."""
    groups: dict[str, str] = {}
    for line in own.splitlines():
        fields = line.split(":", 2)
        if len(fields) == 3:
            groups.update(dict.fromkeys(fields[1].split(","), fields[2]))
    return groups


def _place_of_version_1(
    mount: Sequence[str], options: Sequence[str], groups: dict[str, str]
) -> Place | None:
    controllers = frozenset(
        option for option in options if option in groups and not option.startswith("name=")
    )
    if not controllers:  # a hierarchy that only has a name, such as systemd's
        return None
    return _place(mount, groups[min(controllers)], 1, controllers)


def _place(
    mount: Sequence[str], group: str | None, version: Literal[1, 2], controllers: frozenset[str]
) -> Place | None:
    root, point = _unescaped(mount[3]), _unescaped(mount[4])
    if group is None or ".." in PurePosixPath(group).parts:  # we stand outside of what we see
        return None
    # In a container without a cgroup namespace, the mount shows a part of the whole tree.
    below = PurePosixPath(group)
    if below.is_relative_to(root):
        below = below.relative_to(root)
    elif root != "/":
        return None
    return Place(Path(point) / str(below).lstrip("/"), version, controllers)


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
