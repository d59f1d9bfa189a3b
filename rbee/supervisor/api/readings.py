"""What is read off the supervisor's state when somebody asks for metrics.

What cannot be told (no GPU, no beat yet) has no sample: a 0 would be a lie.
"""

from collections.abc import Iterator, Sequence
from typing import Final, get_args

from rbee import __version__
from rbee.audit import Audit, AuditState
from rbee.metrics import families
from rbee.metrics.exposition import Reading
from rbee.metrics.families import Family
from rbee.supervisor.api.ports import Operations
from rbee.supervisor.breaker import BreakerState
from rbee.supervisor.lifecycle import TAKES_REQUESTS
from rbee.supervisor.views import (
    DISK_STATES,
    GPU_STATES,
    WORKER_STATES,
    DiskView,
    GpuView,
    Readiness,
    ShutdownView,
    WorkerView,
)

AUDIT_STATES: Final = ("off", "recording", "disk_low", "failing")

_TAKES_REQUESTS: Final = frozenset(state.value for state in TAKES_REQUESTS)


def read_off(operations: Operations, audit: Audit) -> Iterator[Reading]:
    """All that the server, its workers and its box show right now."""
    yield families.BUILD_INFO, (__version__,), 1
    yield from _one_of(families.READINESS, (), operations.readiness(), get_args(Readiness))
    yield families.OPEN_REQUESTS, (), operations.open_requests()
    for model in operations.models():
        yield families.QUEUED_REQUESTS, (model.name,), operations.queued_for(model.name)
    yield families.DRAINING, (), operations.draining_s()
    workers = operations.workers()
    yield from _read_slots(workers)
    for worker in workers:
        yield from _read_worker(worker)
    yield families.CRASH_REPORTS, (), len(operations.crashes())
    for gpu in operations.gpus():
        yield from _read_gpu(gpu)
    for disk in operations.disks():
        yield from _read_disk(disk)
    yield from _read_audit(audit.state)
    if (last := operations.last_shutdown()) is not None:
        yield from _read_shutdown(last)


def _read_slots(workers: Sequence[WorkerView]) -> Iterator[Reading]:
    for model in dict.fromkeys(worker.model for worker in workers):
        states = [worker.state for worker in workers if worker.model == model]
        for state in WORKER_STATES:
            yield families.WORKERS, (model, state), states.count(state)


def _read_worker(worker: WorkerView) -> Iterator[Reading]:
    labels = worker.slot, worker.model
    yield families.WORKER_UP, labels, int(worker.state in _TAKES_REQUESTS)
    yield families.WORKER_RESTARTS, labels, worker.restarts
    yield families.WORKER_FAILURES_IN_A_ROW, labels, worker.failures
    yield from _one_of(families.WORKER_BREAKER, labels, worker.breaker, list(BreakerState))
    yield families.WORKER_REQUESTS, labels, worker.requests
    for family, value in (
        (families.WORKER_UPTIME, worker.uptime_s),
        (families.WORKER_BEAT_AGE, worker.beat_age_s),
        (families.WORKER_BATCH, worker.batch_size),
        (families.WORKER_STEPS, worker.steps if worker.beats else None),
        (families.WORKER_CPU, worker.cpu_s),
        (families.WORKER_RESIDENT, worker.rss_bytes),
        (families.WORKER_VRAM, worker.vram_bytes),
        (families.WORKER_VRAM_RESERVED, worker.vram_reserved_bytes),
    ):
        if value is not None:
            yield family, labels, value


def _read_gpu(gpu: GpuView) -> Iterator[Reading]:
    labels = (str(gpu.index),)
    yield families.GPU_INFO, (*labels, gpu.name, gpu.measured_by), 1
    yield from _one_of(families.GPU_STATE, labels, gpu.state, GPU_STATES)
    yield families.GPU_MEMORY, labels, gpu.memory_total_bytes
    yield families.GPU_MEMORY_RESERVED, labels, gpu.reserved_bytes
    for family, value in (
        (families.GPU_MEMORY_FREE, gpu.memory_free_bytes),
        (families.GPU_TEMPERATURE, gpu.temperature_c),
        (families.GPU_TEMPERATURE_LIMIT, gpu.temperature_limit_c),
    ):
        if value is not None:
            yield family, labels, value


def _read_disk(disk: DiskView) -> Iterator[Reading]:
    labels = (disk.place,)
    yield from _one_of(families.DISK_STATE, labels, disk.state, DISK_STATES)
    if disk.free_bytes is not None:
        yield families.DISK_FREE, labels, disk.free_bytes
    if disk.total_bytes is not None:
        yield families.DISK_SIZE, labels, disk.total_bytes


def _read_audit(state: AuditState) -> Iterator[Reading]:
    yield from _one_of(families.AUDIT_STATE, (), state.state, AUDIT_STATES)
    yield families.AUDIT_ENTRIES, (), state.seq
    yield families.AUDIT_WAITING, (), state.waiting
    yield families.AUDIT_LOST, (), state.lost


def _read_shutdown(last: ShutdownView) -> Iterator[Reading]:
    yield families.LAST_SHUTDOWN, ("drain",), last.drain_s
    yield families.LAST_SHUTDOWN, ("faces",), last.faces_s
    yield families.LAST_SHUTDOWN, ("workers",), last.workers_s
    yield families.LAST_SHUTDOWN_CUT, (), last.cut_requests
    yield families.LAST_SHUTDOWN_KILLED, (), last.killed_workers


def _one_of(
    family: Family, labels: tuple[str, ...], found: str, states: Sequence[str]
) -> Iterator[Reading]:
    """1 for the state that holds, 0 for the others: so each can be alerted on."""
    for state in states:
        yield family, (*labels, state), int(state == found)
