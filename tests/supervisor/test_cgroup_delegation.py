"""A group of version 2 that was handed over, as by systemd's Delegate=yes: divided as it must be.

Needs a box where version 2 has the memory controller, and a group that is ours to divide.
"""

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rbee.supervisor.cgroup import Group, foresee
from tests.supervisor.held import need, opened_ground, places_of, running, wait_for

# Joins the group, divides it, and says what came of it.
DIVIDE = """
import json, os, sys
open(sys.argv[1] + "/cgroup.procs", "w").write(str(os.getpid()))
from rbee.supervisor.cgroup import Ground, own_places
places = [place for place in own_places() if place.version == 2]
ground = Ground("divided", places)
ground.open(["memory", "pids"])
group = ground.group("worker")
group.make()
group.limit(67108864 if ground.means.memory else None, None, 50 if ground.means.pids else None)
stands_in = open("/proc/self/cgroup").read().rpartition("0::")[2].strip()
print(json.dumps({"memory": ground.means.memory, "kill": ground.means.kill,
                  "problems": ground.means.problems, "stands_in": stands_in,
                  "files": sorted(os.listdir(group.paths[0]))}))
group.remove()
ground.close()
"""


@contextmanager
def handed_over() -> Iterator[Path]:
    """A group of our own, with controllers to hand on, as systemd makes one for a service."""
    need(foresee(places_of(2)).memory, "cgroup of version 2 with the memory controller")
    with opened_ground(places_of(2), "memory", "pids") as ground:
        folder = ground.folders[0] / f"service-{secrets.token_hex(4)}"
        folder.mkdir()
        yield folder


def divide(folder: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", DIVIDE, str(folder)], capture_output=True, timeout=60, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_alone_in_its_group_the_supervisor_steps_aside_and_divides_it() -> None:
    with handed_over() as folder:
        found = divide(folder)
        assert (found["memory"], found["kill"], found["problems"]) == ("cgroup2", "cgroup2", [])
        assert found["stands_in"].endswith(f"{folder.name}/rbee-supervisor")
        assert {"memory.max", "memory.oom.group", "pids.max", "cgroup.kill"} <= {*found["files"]}


def test_beside_others_in_its_group_it_says_what_is_in_the_way_and_can_still_kill() -> None:
    with handed_over() as folder, running("input()") as other:
        (folder / "cgroup.procs").write_text(str(other.pid))
        found = divide(folder)
        assert (found["memory"], found["kill"]) == ("", "cgroup2")
        assert "memory: 1 other processes stand in" in found["problems"][0]
        assert found["stands_in"].endswith(folder.name), "it stayed where it was"
        Group([folder]).kill()
        wait_for(lambda: other.poll() is not None, "its end")
