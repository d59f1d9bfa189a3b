"""What a supervisor writes down of itself and its workers, for whoever comes after it.

Lies in the run directory: ``instance-ID.json`` from before the first cgroup is made, and
``worker-SPAWN.json`` from before the worker may go on. So there is no moment at which a killed
supervisor leaves something that its successor does not know.

Rule 1: a record of another boot or of another pid namespace says nothing about what runs here.
Rule 2: a record that cannot be read is told, and taken away: half of one is no reason to stop.
"""

import contextlib
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from rbee.supervisor.kin import Identity

INSTANCE_PREFIX: Final = "instance-"
WORKER_PREFIX: Final = "worker-"
SUFFIX: Final = ".json"
RECORD_BYTES_MAX: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class InstanceRecord:
    """One run of a supervisor."""

    instance: str
    where: str  # of `this_machine`
    folders: tuple[str, ...]  # in which the cgroups of its workers lie

    @property
    def name(self) -> str:
        return f"{INSTANCE_PREFIX}{self.instance}{SUFFIX}"


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """One worker process."""

    instance: str
    where: str
    worker_id: str
    spawn: str  # names this process among all of that worker id
    pid: int
    start_ticks: int

    @property
    def name(self) -> str:
        return f"{WORKER_PREFIX}{self.spawn}{SUFFIX}"


@dataclass(frozen=True, slots=True)
class Left:
    """What was found in a run directory."""

    instances: tuple[InstanceRecord, ...]
    workers: tuple[WorkerRecord, ...]
    files: tuple[Path, ...]  # all of them, also those that could not be read
    problems: tuple[str, ...]


def this_machine() -> str:
    """Boot and pid namespace: where a pid means what it says."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    with contextlib.suppress(OSError):
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return boot


def write_record(run_dir: Path, record: InstanceRecord | WorkerRecord) -> None:
    """Put it down whole, or not at all.

    Raises:
      OSError: a full disk, a run directory that is gone.
    """
    path = run_dir / record.name
    draft = path.with_suffix(".new")
    descriptor = os.open(
        draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
    )
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        json.dump(asdict(record), file)
    draft.rename(path)


def remove_record(run_dir: Path, name: str) -> None:
    with contextlib.suppress(OSError):  # whoever finds it finds that it means nobody
        (run_dir / name).unlink(missing_ok=True)


class WorkerNotes:
    """The record of one worker: written when it is spawned, taken away when none of it is left."""

    def __init__(self, run_dir: Path, about: WorkerRecord) -> None:
        self._run_dir = run_dir
        self._about = about

    def write(self, identity: Identity) -> None:
        """Raises: OSError."""
        record = replace(self._about, pid=identity.pid, start_ticks=identity.start_ticks)
        write_record(self._run_dir, record)

    def remove(self) -> None:
        remove_record(self._run_dir, self._about.name)


def read_records(run_dir: Path, instance: str | None = None) -> Left:
    """All that earlier supervisors left, or what one of them left."""
    instances: list[InstanceRecord] = []
    workers: list[WorkerRecord] = []
    files: list[Path] = []
    problems: list[str] = []
    for path in sorted(run_dir.iterdir()):
        kind = _kind(path)
        if kind is None:
            continue
        try:
            record = _read(path, kind)
        except FileNotFoundError:  # a warden was quicker
            continue
        except (OSError, ValueError, TypeError) as error:
            problems.append(f"{path.name}: {error}")
            if instance is None:
                files.append(path)
            continue
        if instance is not None and record.instance != instance:
            continue
        files.append(path)
        if isinstance(record, InstanceRecord):
            instances.append(record)
        else:
            workers.append(record)
    return Left(tuple(instances), tuple(workers), tuple(files), tuple(problems))


def _kind(path: Path) -> type[InstanceRecord] | type[WorkerRecord] | None:
    if path.suffix not in (SUFFIX, ".new"):
        return None
    if path.name.startswith(INSTANCE_PREFIX):
        return InstanceRecord
    return WorkerRecord if path.name.startswith(WORKER_PREFIX) else None


def _read(
    path: Path, kind: type[InstanceRecord] | type[WorkerRecord]
) -> InstanceRecord | WorkerRecord:
    with path.open("rb") as file:
        found: Any = json.loads(file.read(RECORD_BYTES_MAX))
    expected = {name: of for name, of in kind.__annotations__.items() if name != "folders"}
    if not isinstance(found, dict) or any(type(found.get(name)) is not of
                                          for name, of in expected.items()):  # fmt: skip
        raise ValueError("not a record")
    if kind is WorkerRecord:
        return WorkerRecord(**found)
    folders = found.pop("folders", ())
    return InstanceRecord(**found, folders=tuple(str(folder) for folder in folders))
