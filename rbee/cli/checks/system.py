"""What the kernel grants: limits, disk and clock."""

import ctypes
import resource
import shutil
import time
from pathlib import Path
from typing import Final

from rbee.cli.checks.finding import Finding
from rbee.errors import ConfigError
from rbee.hardening import landlock_problem
from rbee.supervisor.worker_user import WorkerUser, find_user, rights_problem

# A stream holds one descriptor; beside them stand sockets of workers, pidfds and files.
FILES_MIN: Final = 512
FILES_WANTED: Final = 4096
LOCKED_BYTES_WANTED: Final = 64 * 1024
DISK_BYTES_MIN: Final = 64 * 1024**2
DISK_BYTES_WANTED: Final = 1024**3
EARLIEST_S: Final = 1_767_225_600  # 2026-01-01: rbee is not older
_TIMEX_BYTES: Final = 512  # struct timex has 208 on 64 bits
_TIME_ERROR: Final = 5  # adjtimex(2): the clock is not synchronised


def check_files() -> Finding:
    return judge_files(*resource.getrlimit(resource.RLIMIT_NOFILE))


def judge_files(soft: int, hard: int) -> Finding:
    """Open files: each stream needs one. rbee serve raises its soft limit to the hard one."""
    files = float("inf") if hard == resource.RLIM_INFINITY else hard
    found = f"{_limit(soft)}, raised to {_limit(hard)} by rbee serve"
    mend = "ulimit -Hn 65536 as root, or LimitNOFILE=65536 in the systemd unit"
    if files < FILES_MIN:
        return Finding("open files", "fail", found, mend)
    if files < FILES_WANTED:
        return Finding("open files", "warn", f"{found}: each stream takes one", mend)
    return Finding("open files", "ok", _limit(soft) if soft == hard else found)


def check_core_dumps() -> Finding:
    return judge_core_dumps(resource.getrlimit(resource.RLIMIT_CORE)[0])


def judge_core_dumps(soft: int) -> Finding:
    if soft == 0:
        return Finding("core dumps", "ok", "off")
    return Finding(
        "core dumps",
        "warn",
        f"allowed up to {_limit(soft)} bytes: they hold prompts, and a worker's is as large as "
        "its memory",
        "ulimit -c 0, or LimitCORE=0 in the systemd unit",
    )


def check_locked_memory() -> Finding:
    return judge_locked_memory(resource.getrlimit(resource.RLIMIT_MEMLOCK)[0])


def judge_locked_memory(soft: int) -> Finding:
    if soft == resource.RLIM_INFINITY or soft >= LOCKED_BYTES_WANTED:
        return Finding("locked memory", "ok", f"{_limit(soft)} bytes")
    return Finding(
        "locked memory",
        "warn",
        f"{soft} bytes, less than {LOCKED_BYTES_WANTED}",
        "ulimit -l 8192, or LimitMEMLOCK=8M in the systemd unit",
    )


def check_confinement() -> Finding:
    return judge_confinement(landlock_problem())


def judge_confinement(problem: str) -> Finding:
    """Whether workers can be kept from plain TCP, and from signals to others."""
    if not problem:
        return Finding("confinement", "ok", "workers use no plain TCP, and signal no others")
    mend = "a kernel from 6.12 on with Landlock on: docs/security.md has what it keeps workers from"
    return Finding("confinement", "warn", problem, mend)


def check_worker_user(named: str) -> Finding:
    """Whether workers can become the user that the configuration names."""
    try:
        user = find_user(named)
    except ConfigError as error:
        return Finding("worker user", "fail", str(error), "name another in [worker] user, or none")
    if user is None:
        return Finding("worker user", "ok", "none: workers stay the user of rbee serve")
    return judge_worker_user(user, rights_problem())


def judge_worker_user(user: WorkerUser, problem: str) -> Finding:
    found = f"workers become {user.name} (uid {user.uid})"
    if not problem:
        return Finding("worker user", "ok", found)
    mend = "start rbee serve as root, with what docs/security.md names"
    return Finding("worker user", "warn", f"{found}, but not by us: {problem}", mend)


def check_disk(path: Path) -> Finding:
    """Free space where the run directory and the working directory are."""
    places = {_existing(path), Path.cwd()}
    place, free = min(
        ((each, shutil.disk_usage(each).free) for each in places), key=lambda pair: pair[1]
    )
    return judge_disk(place, free)


def judge_disk(place: Path, free_bytes: int) -> Finding:
    found = f"{free_bytes / 1024**3:.1f} GiB free at {place}"
    mend = f"free some space there (du -xh {place} | sort -h | tail)"
    if free_bytes < DISK_BYTES_MIN:
        return Finding("disk", "fail", found, mend)
    return Finding("disk", "warn", found, mend) if free_bytes < DISK_BYTES_WANTED else Finding(
        "disk", "ok", found
    )  # fmt: skip


def check_clock() -> Finding:
    return judge_clock(time.time(), _clock_state())


def judge_clock(now_s: float, state: int) -> Finding:
    """Args:
    now_s: Unix time.
    state: as adjtimex(2) returns; -1 when it cannot be asked.
    """
    today = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now_s))
    if now_s < EARLIEST_S:
        return Finding("clock", "fail", today, "set the clock: timedatectl set-ntp true")
    if state == _TIME_ERROR:
        return Finding(
            "clock",
            "warn",
            f"{today}, not synchronised",
            "timedatectl set-ntp true (in a virtual machine or container: on its host)",
        )
    return Finding("clock", "ok", today)


def _clock_state() -> int:
    """adjtimex(2) with nothing to adjust: it only reads."""
    try:
        return int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES)))
    except (OSError, AttributeError):
        return -1


def _existing(path: Path) -> Path:
    return next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())


def _limit(count: int) -> str:
    return "unlimited" if count == resource.RLIM_INFINITY else str(count)
