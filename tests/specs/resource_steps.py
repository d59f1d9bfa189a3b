"""The steps of `specs/230-resources.feature`."""

import os
import signal
import time
from pathlib import Path

import psutil

from rbee.supervisor.cgroup import Group
from rbee.supervisor.kin import find_marked
from rbee.supervisor.records import InstanceRecord
from tests.e2e.server import is_running, wait_until
from tests.specs.runner import Steps
from tests.specs.world import World, numbers

STEPS = Steps()
step = STEPS.step

MIB = 1024 * 1024

# The server sees no control groups: in a mount namespace of its own, they are not mounted.
WITHOUT_CGROUPS = ("unshare", "-m", "sh", "-c", 'umount -R /sys/fs/cgroup && exec "$@"', "sh")

# A failover would take the fault to the neighbour.
NO_FAILOVERS = "[worker]\nfailovers_max = 0\n"


def left_over(instance: InstanceRecord) -> list[int]:
    """Every process that this server, or one of its workers, has started."""
    prefix = instance.instance + "/"
    return [identity.pid for identity in find_marked(lambda mark: mark.startswith(prefix))]


def strays(world: World) -> list[int]:
    return [pid for pid in left_over(world.instances[-1]) if pid not in world.pids]


def hog(world: World, slots: int, mib: int, gib: int, prompt: str) -> None:
    world.configure(
        head=NO_FAILOVERS,
        model=f"slots = {slots}\nmemory_bytes_max = {mib * MIB}",
        synthetic=f'fault = "hog_memory"\nfault_prompt = "{prompt}"\n'
        f"hog_bytes = {gib * 1024 * MIB}",
    )


@step(
    r'a server with (\d+) workers of at most (\d+) MiB that will take (\d+) GiB when asked "(.+)"'
)
def given_hogs(world: World, slots: str, mib: str, gib: str, prompt: str) -> None:
    hog(world, int(slots), int(mib), int(gib), prompt)
    world.start_all()
    world.rss_bytes = psutil.Process(world.server.pid).memory_info().rss


@step(
    r"a server without cgroups with 1 worker of at most (\d+) MiB that will take (\d+) GiB"
    r' when asked "(.+)"'
)
def given_watched_hog(world: World, mib: str, gib: str, prompt: str) -> None:
    hog(world, 1, int(mib), int(gib), prompt)
    world.start_all(WITHOUT_CGROUPS)


@step(r"a server with 1 worker of at most (\d+) MiB")
def given_limited(world: World, mib: str) -> None:
    world.configure(model=f"memory_bytes_max = {int(mib) * MIB}")
    world.start_all()


@step(r"a server with 1 worker that will (stray_child)")
def given_strays(world: World, fault: str) -> None:
    world.configure(synthetic=f'fault = "{fault}"')
    world.start_all()
    assert len(strays(world)) == 1


@step(r"a server without cgroups with (\d+) workers that will (stray_child)")
def given_strays_without_cgroups(world: World, slots: str, fault: str) -> None:
    world.configure(model=f"slots = {slots}", synthetic=f'fault = "{fault}"')
    world.start_all(WITHOUT_CGROUPS)


@step(r"a server without cgroups is started with workers of at most (\d+) core")
def when_unholdable(world: World, cpus: str) -> None:
    world.configure(model=f"cpus = {cpus}")
    start_in_vain(world, WITHOUT_CGROUPS)


@step(r"a server with (\d+) workers is started that may open (\d+) files")
def when_few_files(world: World, slots: str, files: str) -> None:
    world.configure(model=f"slots = {slots}")
    start_in_vain(world, ("sh", "-c", f'ulimit -n {files}; exec "$@"', "sh"))


def start_in_vain(world: World, through: tuple[str, ...]) -> None:
    world.second = world.server_through(through)
    world.second.process.wait(30)


@step(r'it exits with code (\d+) and says "(.+)"')
def then_refused_at_start(world: World, code: str, words: str) -> None:
    assert world.second is not None
    assert world.second.process.returncode == int(code)
    world.second._reader.join(5)
    assert words in world.second.log
    assert "Traceback" not in world.second.log


@step(r'the log names the cause "(\w+)" within (\d+) seconds')
def then_cause_named(world: World, cause: str, within_s: str) -> None:
    begun_s = time.monotonic()
    failed = world.server.wait_event("worker_failed", float(within_s))
    print(f"{failed['how']}, named {time.monotonic() - begun_s:.2f} s after it was asked for")
    assert failed["how"].startswith(f"{cause}: "), failed
    wait_until(lambda: cause in world.server.workers()[0]["last_failure"]
               or cause in world.server.workers()[-1]["last_failure"], 2, "the status")  # fmt: skip


@step(r"the first stream ends whole with (\d+) tokens")
def then_first_stream_whole(world: World, tokens: str) -> None:
    stream = world.streams[0].wait_over()
    assert stream.text == numbers(int(tokens))
    assert stream.finish_reasons == ["length"]


@step(r"its worker has the pid that it had")
def then_neighbour_untouched(world: World) -> None:
    workers = world.server.workers()
    untouched = [worker for worker in workers if worker["last_failure"] == ""]
    assert len(untouched) == 1
    assert untouched[0]["pid"] in world.pids
    assert untouched[0]["restarts"] == 0


@step(r"the supervisor has grown by less than (\d+) MiB")
def then_small(world: World, mib: str) -> None:
    rss_bytes = psutil.Process(world.server.pid).memory_info().rss
    assert rss_bytes - world.rss_bytes < int(mib) * MIB


@step(r"the log says by what each limit is held")
def then_means_told(world: World) -> None:
    [limits] = [event for event in world.server.events if event["event"] == "limits"]
    assert limits["memory"] in ("cgroup1", "cgroup2")
    assert limits["kill"] in ("cgroup1", "cgroup2")
    assert limits["problems"] == []
    assert world.server.workers()[0]["held_by"] == {"memory": limits["memory"]}


@step(r"the worker is in a cgroup with a limit of (\d+) MiB")
def then_in_cgroup(world: World, mib: str) -> None:
    folders = [
        worker
        for folder in world.instances[-1].folders
        for worker in (Path(folder).iterdir() if Path(folder).is_dir() else ())
        if worker.is_dir()
    ]
    assert {pid for folder in folders for pid in Group([folder]).pids()} == set(world.pids)
    limits = [
        int((folder / name).read_text())
        for folder in folders
        for name in ("memory.limit_in_bytes", "memory.max")
        if (folder / name).exists()
    ]
    assert limits == [int(mib) * MIB]


@step(r'the log says "(\w+)" at its start')
def then_logged_at_start(world: World, event: str) -> None:
    names = [each["event"] for each in world.server.events]
    assert names.index(event) < names.index("supervisor_started")


@step(r"what the worker had left behind is gone within (\d+) second")
def then_strays_gone(world: World, within_s: str) -> None:
    old = int(world.server.wait_event("worker_reaped", 5)["strays"][0])
    wait_until(lambda: not is_running(old), float(within_s), "the stray's end")


@step(r"no zombie is a child of the server within (\d+) seconds")
def then_no_zombie(world: World, within_s: str) -> None:
    def zombies() -> list[psutil.Process]:
        children = psutil.Process(world.server.pid).children()
        return [child for child in children if child.status() == psutil.STATUS_ZOMBIE]

    wait_until(lambda: not zombies(), float(within_s), "reaping")


@step(r"nothing that was ever started by it is left(?: within (\d+) seconds)?")
def then_nothing_left(world: World, within_s: str | None) -> None:
    instance = world.instances[-1]
    wait_until(lambda: not left_over(instance), float(within_s or 0.1), "the end of all")


@step(r"nothing that was started by the first server is left")
def then_nothing_of_first_left(world: World) -> None:
    assert len(world.instances) == 2
    assert left_over(world.instances[0]) == []


@step(r"no cgroup of it is left")
def then_no_cgroup_left(world: World) -> None:
    folders = [Path(folder) for folder in world.instances[-1].folders]
    assert folders, "it had none that could be left"
    wait_until(lambda: not any(map(Path.exists, folders)), 2, "its cgroups' end")


@step(r"the server is killed together with its warden")
def when_all_guards_killed(world: World) -> None:
    supervisor = psutil.Process(world.server.pid)
    [warden] = [
        child
        for child in supervisor.children()
        if child.status() != psutil.STATUS_ZOMBIE and "rbee.supervisor.warden" in child.cmdline()
    ]
    supervisor.suspend()  # or it would start another one
    warden.kill()
    os.kill(world.server.pid, signal.SIGKILL)
    world.server.process.wait(5)


@step(r"its strays are still there")
def then_strays_there(world: World) -> None:
    wait_until(lambda: not any(map(is_running, world.pids)), 2, "the workers' end")
    assert len(left_over(world.instances[-1])) == 2


@step(r"the log says that orphans were killed before the first worker was started")
def then_swept(world: World) -> None:
    names = [event["event"] for event in world.server.events]
    assert names.index("orphans_killed") < names.index("worker_spawned")
