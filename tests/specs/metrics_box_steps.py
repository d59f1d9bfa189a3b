"""The steps of `specs/350-metrics.feature` on processes, disks, the audit log and shutdowns."""

import time
from datetime import datetime
from typing import Final

import psutil

from rbee.metrics import families
from rbee.supervisor.last_shutdown import FILE
from tests.audit.log import entries
from tests.e2e.server import wait_until
from tests.specs.audit_steps import place, state_dir
from tests.specs.metrics_room import scrape
from tests.specs.runner import Steps
from tests.specs.world import World

STEPS = Steps()
step = STEPS.step

LOOK_S: Final = 0.05
CLOCKS_WITHIN_S: Final = 0.1  # the system counts in hundredths
MEMORY_WITHIN: Final = 0.2
DISK_WITHIN: Final = 0.05


# --- processes


@step(r"the age of the last beat stays below ([\d.]+) seconds? for ([\d.]+) seconds")
def then_age(world: World, below_s: str, for_s: str) -> None:
    begun_s, ages = time.monotonic(), []
    while time.monotonic() - begun_s < float(for_s):
        ages.append(scrape(world).sum(families.WORKER_BEAT_AGE.name))
        time.sleep(LOOK_S)
    assert all(age is not None and 0 <= age < float(below_s) for age in ages), ages
    assert max(filter(None, ages)) > LOOK_S  # it is no constant


@step(r"memory and processor time of the (worker|supervisor) are those that the system tells")
def then_vitals(world: World, who: str) -> None:
    pid = world.pids[0] if who == "worker" else world.server.pid
    process = psutil.Process(pid)
    cpu_before_s, least_age_s = _spent_s(process), _age_s(process)
    told = scrape(world)
    cpu_after_s, age_after_s = _spent_s(process), _age_s(process)
    if who == "worker":  # its age is from when the supervisor holds it: it was not ready before
        [ready] = [each for each in world.server.events if each["event"] == "worker_ready"]
        ready_s = datetime.fromisoformat(ready["timestamp"]).timestamp()
        least_age_s -= ready_s - process.create_time()
        memory = told.sum('rbee_worker_resident_memory_bytes{slot="synthetic-0"}')
        cpu_s = told.sum('rbee_worker_cpu_seconds_total{slot="synthetic-0"}')
        age_s = told.sum('rbee_worker_uptime_seconds{slot="synthetic-0"}')
    else:
        memory = told.sum("process_resident_memory_bytes")
        cpu_s = told.sum("process_cpu_seconds_total")
        start_s = told.sum("process_start_time_seconds")
        age_s = None if start_s is None else time.time() - start_s
        age_after_s = _age_s(process)
    assert memory is not None
    assert cpu_s is not None
    assert age_s is not None
    resident = process.memory_info().rss
    assert abs(memory - resident) < resident * MEMORY_WITHIN
    assert cpu_s > 0
    assert cpu_before_s - CLOCKS_WITHIN_S <= cpu_s <= cpu_after_s + CLOCKS_WITHIN_S
    assert least_age_s - CLOCKS_WITHIN_S <= age_s <= age_after_s + CLOCKS_WITHIN_S


def _spent_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _age_s(process: psutil.Process) -> float:
    return time.time() - process.create_time()


# --- the audit log, and disks


@step(r"rbee_audit_entries_total is the number of the last entry")
def then_last_entry(world: World) -> None:
    def is_so() -> bool:
        seq: int = entries(place(world))[-1]["seq"]
        return scrape(world).sum("rbee_audit_entries_total") == seq

    wait_until(is_so, 5, "the number of the last entry")


@step(r"both disks are told as the system tells them")
def then_disks(world: World) -> None:
    told = scrape(world)
    for name, folder in (("state_dir", state_dir(world)), ("run_dir", world.server.run_dir)):
        disk = psutil.disk_usage(str(folder))
        free = told.sum(f'rbee_disk_free_bytes{{place="{name}"}}')
        assert told.sum(f'rbee_disk_size_bytes{{place="{name}"}}') is not None
        assert free is not None
        assert abs(free - disk.free) < disk.total * DISK_WITHIN
        states = [told.sum(f'rbee_disk_state{{place="{name}",state="{s}"}}') for s in ("ok", "low")]
        assert sorted(filter(None, states)) == [1]


# --- shutdowns


@step(
    r"a server that drains for ([\d.]+) seconds, with (\d+) workers that ignore everything"
    r" for (\d+) second"
)
def given_stubborn(world: World, drain_s: str, slots: str, kill_after_s: str) -> None:
    server = f'[server]\nstate_dir = "{state_dir(world)}"\ndrain_s = {drain_s}\n'
    worker = f"[worker]\nterm_after_s = {float(kill_after_s) / 2}\nkill_after_s = {kill_after_s}\n"
    world.configure(
        head=server + worker, model=f"slots = {slots}", synthetic='fault = "ignore_all"'
    )
    world.start_all()


@step(r"the last shutdown is told as the log of that server has it")
def then_told(world: World) -> None:
    before = world.servers[-2]
    before.close()  # its log is read to the end
    [done] = [each for each in before.events if each["event"] == "shutdown_done"]
    told = scrape(world)
    for part in ("drain", "faces", "workers"):
        value = told.sum(f'rbee_last_shutdown_duration_seconds{{part="{part}"}}')
        assert value is not None
        assert value == done[f"{part}_s"] >= 0
    assert told.sum("rbee_last_shutdown_cut_requests") == done["cut_requests"]
    assert told.sum("rbee_last_shutdown_killed_workers") == done["killed_workers"]


@step(r"what the last shutdown has left is (half a file|another's link)")
def given_left(world: World, what: str) -> None:
    folder = state_dir(world)
    folder.mkdir(mode=0o700)
    if what == "half a file":
        (folder / FILE).write_text('{"drain_s": 1.5, "faces')
        return
    elsewhere = world.directory / "elsewhere.json"
    elsewhere.write_text(
        '{"drain_s":1,"faces_s":1,"workers_s":1,"cut_requests":1,"killed_workers":1}'
    )
    (folder / FILE).symlink_to(elsewhere)
