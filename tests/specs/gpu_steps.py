"""The steps of `specs/230-resources.feature` that need a GPU: NVIDIA's library is stood in for.

The server imports the stand-in in the library's place, as it comes first on PYTHONPATH; whatever is
between it and the workers, which are real processes, is what ships.
"""

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from tests.e2e.server import wait_until
from tests.specs.evidence_steps import newest_report
from tests.specs.runner import Steps
from tests.specs.world import World

STEPS = Steps()
step = STEPS.step

GIB = 1024**3
STAND_IN = Path(__file__).parents[1] / "e2e" / "fake_nvml" / "pynvml.py"

# The first word of `worker_waits` after the release counts as a look: they come each second.
PATIENCE_S = 0.4

HASTY = """
[gpu]
room_timeout_s = 1
release_timeout_s = 3
look_s = 0.2
[restart]
delay_s_min = 0
"""


def tell(world: World, **gpu: Any) -> None:
    """What the library tells from now on."""
    folder = world.directory / "nvml"
    folder.mkdir(exist_ok=True)
    if not (folder / "pynvml.py").exists():
        shutil.copy(STAND_IN, folder)
    whole = {
        "uuid": "GPU-a", "total_bytes": 80 * GIB, "worker_bytes": 50 * GIB, "temperature_c": 40,
        "temperature_max_c": 90, **gpu,
    }  # fmt: skip
    new = folder / "gpus.new"
    new.write_text(json.dumps({"gpus": [whole], "hang_s": gpu.get("hang_s", 0)}))
    new.rename(folder / "gpus.json")


def start(world: World, *, slots: int = 1, gib: int = 50, until_ready: bool = True) -> None:
    world.configure(
        head=HASTY,
        model=f"slots = {slots}",
        synthetic=f"vram_bytes = {gib * GIB}",
    )
    path = os.pathsep.join(filter(None, [str(world.directory / "nvml"), os.getenv("PYTHONPATH")]))
    world.start(through=("env", f"PYTHONPATH={path}"), until_ready=until_ready)


def gpu_view(world: World) -> dict[str, Any]:
    [view] = world.server.get("/v1/rbee/status").json()["gpus"]
    return dict(view)


@step(r"a server with a GPU of 80 GiB and (\d+) workers? of (\d+) GiB")
def given_gpu(world: World, slots: str, gib: str) -> None:
    tell(world)
    start(world, slots=int(slots), gib=int(gib))


@step(r"a server with a GPU of 80 GiB that is ([\d.]+) seconds late and 1 worker of (\d+) GiB")
def given_late_gpu(world: World, late_s: str, gib: str) -> None:
    tell(world, late_s=float(late_s))
    start(world, gib=int(gib))


@step(r"a server with a GPU of (\d+) degrees")
def given_hot_gpu(world: World, degrees: str) -> None:
    tell(world, temperature_c=int(degrees))
    start(world, until_ready=False)


@step(r'one of them serves, and the other has failed as "(\w+)" without having been started')
def then_one_serves(world: World, cause: str) -> None:
    def states() -> list[str]:
        return sorted(worker["state"] for worker in world.server.workers())

    wait_until(lambda: states() == ["failed", "ready"], 10, "one to serve and one to fail")
    spawned = [each for each in world.server.events if each["event"] == "worker_spawned"]
    assert len(spawned) == 1
    [failed] = [each for each in world.server.workers() if each["state"] == "failed"]
    assert failed["cause"] == cause
    assert failed["restarts"] == 0


@step(r"its failure says how much of the GPU its neighbour holds")
def then_holder_named(world: World) -> None:
    by_state = {each["state"]: each for each in world.server.workers()}
    neighbour = by_state["ready"]["slot"]
    assert f"{neighbour} holds 50.00 GiB of 80.00 GiB" in by_state["failed"]["last_failure"]
    assert by_state["ready"]["vram_bytes"] == 50 * GIB
    assert by_state["ready"]["vram_reserved_bytes"] == 50 * GIB


@step(r'a crash report tells the cause "(\w+)" of a worker that was never started, and its GPU')
def then_reported(world: World, cause: str) -> None:
    report = newest_report(world)
    assert (report["cause"], report["pid"]) == (cause, None)
    assert report["gpus"]["gpus"][0]["memory_total_bytes"] == 80 * GIB


@step(r"the status says that (\d+) GiB of the GPU are reserved")
def then_reserved(world: World, gib: str) -> None:
    view = gpu_view(world)
    assert (view["reserved_bytes"], view["state"]) == (int(gib) * GIB, "ok")
    assert view["measured_by"] == "process"
    disks = world.server.get("/v1/rbee/status").json()["disks"]
    assert [disk["place"] for disk in disks] == ["state_dir", "run_dir"]
    assert all(disk["total_bytes"] > disk["free_bytes"] > 0 for disk in disks)


@step(r"the worker on the GPU is killed")
def when_killed(world: World) -> None:
    os.kill(world.pids[0], signal.SIGKILL)
    world.killed_s = time.monotonic()


@step(r"the next one is started no sooner than ([\d.]+) seconds later")
def then_next_started(world: World, after_s: str) -> None:
    world.server.wait_event("worker_failed", 5)
    world.server.wait_event("worker_spawned", 10)
    assert time.monotonic() - world.killed_s >= float(after_s) - PATIENCE_S


@step(r'the log says "(worker_waits)" for its slot, and "(vram_not_released)" in the end')
def then_waits(world: World, event: str, late: str) -> None:
    waits = world.server.wait_event(event, 5, slot="synthetic-0")
    assert "the memory of its last process is not back on GPU 0" in waits["reason"]
    told = world.server.wait_event(late, 15, worker="synthetic-0")
    assert told["pid"] == world.pids[0]


@step(r"no other worker is started")
def then_none_started(world: World) -> None:
    world.server.wait_event("slot_failed", 10, slot="synthetic-0", cause="out_of_memory")
    spawned = [each for each in world.server.events if each["event"] == "worker_spawned"]
    assert len(spawned) == 1


@step(r'its worker waits for the GPU, which is "(\w+)"')
def then_waits_for_gpu(world: World, state: str) -> None:
    world.server.wait_event("worker_waits", 5)
    assert gpu_view(world)["state"] == state
    [worker] = world.server.workers()
    assert (worker["state"], worker["pid"]) == ("waiting", None)
    assert "GPU 0 has 95 degrees" in worker["waits_for"]


@step(r"the GPU has (\d+) degrees")
def when_cooled(world: World, degrees: str) -> None:
    tell(world, temperature_c=int(degrees))


@step(r"the server serves within (\d+) seconds")
def then_serves(world: World, within_s: str) -> None:
    world.server.wait_event("serving", float(within_s))


@step(r"every call into the driver hangs")
def when_driver_hangs(world: World) -> None:
    tell(world, hang_s=60)


@step(r'the status says that the GPU is "(\w+)" within (\d+) seconds')
def then_gpu_state(world: World, state: str, within_s: str) -> None:
    wait_until(lambda: gpu_view(world)["state"] == state, float(within_s), state)
    world.server.wait_event(f"gpu_{state}", 5)


@step(r"a request is answered while it hangs")
def then_answered(world: World) -> None:
    assert world.server.chat("one", max_tokens=3).status_code == 200


@step(r"the server ends with code (\d+) within (\d+) seconds of SIGTERM")
def then_ends(world: World, code: str, within_s: str) -> None:
    begun_s = time.monotonic()
    assert world.server.stop() == int(code)
    assert time.monotonic() - begun_s < float(within_s)
