"""Where we stand in each hierarchy: parsed from what the kernel says, on boxes of every kind."""

from pathlib import Path

import pytest

from rbee.supervisor.cgroup.places import Place, find_places

V2_MOUNT = "29 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


def v1_mount(options: str, point: str, root: str = "/") -> str:
    return f"32 31 0:29 {root} {point} rw,relatime - cgroup cgroup rw,{options}\n"


def test_on_a_box_of_version_2_there_is_one_place() -> None:
    own = "0::/system.slice/rbee.service\n"
    expected = Place(Path("/sys/fs/cgroup/system.slice/rbee.service"), 2, frozenset())
    assert find_places(V2_MOUNT, own) == [expected]


def test_on_a_box_of_version_1_there_is_one_for_each_hierarchy() -> None:
    mounts = v1_mount("cpu,cpuacct", "/cg/cpu,cpuacct") + v1_mount("memory", "/cg/memory")
    own = "4:memory:/user\n3:cpu,cpuacct:/\n"
    assert find_places(mounts, own) == [
        Place(Path("/cg/cpu,cpuacct"), 1, frozenset({"cpu", "cpuacct"})),
        Place(Path("/cg/memory/user"), 1, frozenset({"memory"})),
    ]


def test_a_hierarchy_that_only_has_a_name_is_of_no_use() -> None:
    assert find_places(v1_mount("xattr,name=systemd", "/cg/systemd"), "1:name=systemd:/\n") == []


def test_both_versions_may_stand_side_by_side() -> None:
    mounts = v1_mount("memory", "/cg/memory") + V2_MOUNT.replace("/sys/fs/cgroup", "/cg/unified")
    versions = [place.version for place in find_places(mounts, "4:memory:/\n0::/\n")]
    assert versions == [1, 2]


def test_a_container_that_sees_a_part_of_the_tree_is_at_its_top() -> None:
    mounts = v1_mount("memory", "/cg/memory", root="/docker/4f2a")
    [place] = find_places(mounts, "4:memory:/docker/4f2a\n")
    assert place.path == Path("/cg/memory")
    [below] = find_places(mounts, "4:memory:/docker/4f2a/inner\n")
    assert below.path == Path("/cg/memory/inner")


@pytest.mark.parametrize(
    ("mounts", "own"),
    [
        (V2_MOUNT, "0::/../outside\n"),
        (v1_mount("memory", "/cg/memory", root="/docker/4f2a"), "4:memory:/elsewhere\n"),
        (V2_MOUNT, ""),
        ("", "0::/\n"),
        ("nonsense\n29 22 - cgroup2\n", "more nonsense\n0::/\n"),
    ],
    ids=["outside of the namespace", "outside of the mount", "in none", "not mounted", "nonsense"],
)
def test_a_group_that_cannot_be_seen_is_no_place(mounts: str, own: str) -> None:
    assert find_places(mounts, own) == []


def test_a_mount_point_may_hold_a_space() -> None:
    [place] = find_places(V2_MOUNT.replace("/sys/fs/cgroup", r"/my\040groups"), "0::/\n")
    assert place.path == Path("/my groups")


def test_what_is_mounted_twice_is_taken_once() -> None:
    assert len(find_places(V2_MOUNT * 2, "0::/\n")) == 1
