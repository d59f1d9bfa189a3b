"""``python -m tests.e2e.nth_failure``: every system call of `rbee serve` fails once, one by one.

In a start, in the crash of a worker and in a shutdown, until no further call is there to fail.
Takes some twenty minutes; `test_nth_failure.py` has a sample for each day.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.e2e.injection import Outcome, Phase, Point, attempt, own_calls

# With what each call fails in nature. Not epoll_ctl, which fails for want of kernel memory only:
# libzmq aborts the process then, whatever we do. Not kill: our own children are ours to signal.
ERRNOS = {
    "mkdir": "ENOSPC", "openat": "EMFILE", "getdents64": "EIO", "readlink": "EACCES",
    "flock": "ENOLCK", "ftruncate": "EIO", "pwrite64": "ENOSPC", "fsync": "EIO",
    "fdatasync": "EIO", "rename": "ENOSPC", "unlink": "EIO", "rmdir": "EIO", "chmod": "EPERM",
    "socket": "EMFILE", "bind": "EADDRINUSE", "listen": "EADDRINUSE", "socketpair": "EMFILE",
    "accept4": "EMFILE", "setsockopt": "ENOBUFS", "epoll_create1": "EMFILE",
    "eventfd2": "EMFILE", "pipe2": "EMFILE", "clone3": "EAGAIN", "vfork": "EAGAIN",
    "pidfd_open": "EMFILE", "prctl": "EINVAL", "prlimit64": "EPERM",
}  # fmt: skip

# By threads of their own, of which a recording of the main thread says nothing.
BY_OTHERS = ("fsync", "fdatasync")
NTH_MAX = 60
MISSES_MAX = 2  # in a row: what follows a crash has not always the same order
JOBS = 2


def start_points(directory: Path) -> list[Point]:
    own = own_calls(directory, list(ERRNOS))
    return [
        Point("start", call, ERRNOS[call], nth)
        for call, numbers in own.items()
        for nth in (range(1, 11) if call in BY_OTHERS else numbers)
    ]


def try_all(directory: Path, points: list[Point]) -> Iterator[Outcome]:
    with ThreadPoolExecutor(JOBS) as pool:
        folders = [directory / f"{number}" for number in range(len(points))]
        yield from pool.map(attempt, folders, points)


def try_until_missed(directory: Path, phase: Phase, call: str) -> Iterator[Outcome]:
    misses = 0
    for first in range(1, NTH_MAX, JOBS):
        points = [Point(phase, call, ERRNOS[call], first + each) for each in range(JOBS)]
        (directory / f"{phase}-{call}-{first}").mkdir()
        for outcome in try_all(directory / f"{phase}-{call}-{first}", points):
            yield outcome
            misses = 0 if outcome.was_hit else misses + 1
        if misses >= MISSES_MAX:
            return


def everything(directory: Path) -> Iterator[Outcome]:
    yield from try_all(directory, start_points(directory / "recording"))
    for phase in ("crash", "stop"):
        for call in ERRNOS:
            yield from try_until_missed(directory, phase, call)


def main() -> int:
    begun_s, hit, bad = time.monotonic(), 0, 0
    with tempfile.TemporaryDirectory(prefix="rbee-nth-") as folder:
        for outcome in everything(Path(folder)):
            hit += outcome.was_hit
            bad += bool(outcome.problems)
            if outcome.was_hit or outcome.problems:
                print("BAD " if outcome.problems else "good", outcome, flush=True)
    took_s = time.monotonic() - begun_s
    print(f"{hit} failures, of which {bad} were not taken as they should; {took_s:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
