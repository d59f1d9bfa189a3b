"""The parts of the supervisor, put together; `main` opens what they need, and runs them."""

import random
import time
from dataclasses import dataclass
from pathlib import Path

import trio

from rbee.audit import OpenAudit
from rbee.config import Config
from rbee.logs import Log
from rbee.metrics import Metrics
from rbee.supervisor.access.failures import REASONS
from rbee.supervisor.access.tending import Gate
from rbee.supervisor.audited import Lives, Presence
from rbee.supervisor.bind import Bind
from rbee.supervisor.crashes import Crashes, default_state_dir
from rbee.supervisor.devices import survey_gpus
from rbee.supervisor.disk_watch import DiskWatch
from rbee.supervisor.evidence import CrashRecorder
from rbee.supervisor.gpu_gate import GpuGate
from rbee.supervisor.http_server import Tls
from rbee.supervisor.instance import Instance
from rbee.supervisor.kin import processor_s
from rbee.supervisor.last_lines import LastLines
from rbee.supervisor.last_shutdown import Stopwatch, take
from rbee.supervisor.launch import Launcher
from rbee.supervisor.local import LocalSocket
from rbee.supervisor.operations import Operations
from rbee.supervisor.pool import Pool
from rbee.supervisor.restart import Cause
from rbee.supervisor.signals import Ending
from rbee.supervisor.slot import Slot, Surroundings
from rbee.supervisor.start import Start
from rbee.supervisor.worker import WorkerPlan
from rbee.supervisor.worker_user import WorkerUser
from rbee.transport.link import LinkFactory


@dataclass(frozen=True, slots=True)
class Outside:
    """What was made outside of this process, and is taken away at the end."""

    links: LinkFactory
    instance: Instance
    bind: Bind
    opened: OpenAudit
    presence: Presence
    start: Start
    tls: Tls | None
    gate: Gate
    gpus: GpuGate
    local: LocalSocket | None


@dataclass(frozen=True, slots=True)
class House:
    """All the parts, ready to run."""

    config: Config
    outside: Outside
    slots: list[Slot]
    pool: Pool
    operations: Operations
    surroundings: Surroundings
    disks: DiskWatch
    metrics: Metrics
    stopwatch: Stopwatch  # of the shutdown
    ending: Ending
    log: Log


def build(
    config: Config, plans: list[WorkerPlan], user: WorkerUser | None, outside: Outside, log: Log
) -> House:
    """Reads what the server before has left: its crash reports, and how its shutdown went."""
    slots = [Slot(plan) for plan in plans]
    metrics = Metrics(
        ((slot.slot_id, slot.model.name) for slot in slots), causes=Cause, reasons=REASONS
    )
    lives = Lives(outside.opened.audit, metrics)
    pool = Pool(
        slots,
        backlog=(config.server.queue_requests_max, config.server.queue_tokens_max),
        limits=config.worker,
        clock=trio.current_time,
        log=log,
        lives=lives,
        metrics=metrics,
    )
    ending = Ending(outside.start.overdue.start, lambda: pool.open_requests, log)
    lines = LastLines(log)
    crashes = _open_crashes(config, log)

    def note_failed(_slot: Slot) -> None:
        if config.restart.on_hopeless == "exit" and all(slot.is_hopeless for slot in slots):
            ending.give_up()

    surroundings = Surroundings(
        launch=Launcher(
            outside.links,
            config.worker,
            ending.hurry,
            lines,
            custody=outside.instance.custody,
            killed=lives.killed,
            user=user,
        ),
        worker=config.worker,
        restart=config.restart,
        delivery=pool,
        chance=random.Random(),  # noqa: S311  # spreads delays; no secret hangs on it
        log=lines,
        evidence=CrashRecorder(lines, crashes, survey_gpus, outside.gpus.seen),
        slot_failed=note_failed,
        lives=lives,
        gate=outside.gpus,
    )
    folders = {"state_dir": state_dir_of(config), "run_dir": outside.instance.run_dir}
    disks = DiskWatch(folders, config.server, log)
    operations = Operations(
        slots, pool, crashes, trio.current_time, int(time.time()),
        gpus=outside.gpus, disks=disks.views, holding=outside.instance.holding,
        processor_s=processor_s, last_shutdown=take(state_dir_of(config), log),
    )  # fmt: skip
    stopwatch = Stopwatch(trio.current_time, metrics.kills)
    return House(
        config, outside, slots, pool, operations, surroundings, disks, metrics, stopwatch,
        ending, log,
    )  # fmt: skip


def _open_crashes(config: Config, log: Log) -> Crashes:
    crashes = Crashes(state_dir_of(config), log)
    crashes.load()
    return crashes


def state_dir_of(config: Config) -> Path:
    state_dir = Path(config.server.state_dir) if config.server.state_dir else default_state_dir()
    return state_dir.absolute()
