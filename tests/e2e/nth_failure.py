"""``python -m tests.e2e.nth_failure [PHASE …]``: every system call of rbee fails once, one by one.

In a start, in the crash of a worker and in a shutdown; in commands that change keys, and in a
server that is asked to, that records it, or that reads its files again: until no further call is
there to fail. That is more than a thousand, and takes an hour or so; `test_nth_failure.py` and
`test_nth_failure_of_deeds.py` have a sample for each day.
"""

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Final, TypeVar

from tests.e2e import injected_command, injected_deed
from tests.e2e.box import Box
from tests.e2e.injected_command import Desk, attempt_command, command_points
from tests.e2e.injected_deed import attempt_deed
from tests.e2e.injection import Outcome, Phase, Point, attempt, own_calls

R, S, T = TypeVar("R"), TypeVar("S"), TypeVar("T")

# With what each call fails in nature. Not epoll_ctl, which fails for want of kernel memory only:
# libzmq aborts the process then, whatever we do. Not kill: our own children are ours to signal.
ERRNOS: Final = {
    "mkdir": "ENOSPC", "openat": "EMFILE", "getdents64": "EIO", "readlink": "EACCES",
    "flock": "ENOLCK", "ftruncate": "EIO", "pwrite64": "ENOSPC", "fsync": "EIO",
    "fdatasync": "EIO", "rename": "ENOSPC", "unlink": "EIO", "rmdir": "EIO", "chmod": "EPERM",
    "socket": "EMFILE", "bind": "EADDRINUSE", "listen": "EADDRINUSE", "socketpair": "EMFILE",
    "accept4": "EMFILE", "setsockopt": "ENOBUFS", "epoll_create1": "EMFILE",
    "eventfd2": "EMFILE", "pipe2": "EMFILE", "clone3": "EAGAIN", "vfork": "EAGAIN",
    "pidfd_open": "EMFILE", "prctl": "EINVAL", "prlimit64": "EPERM",
}  # fmt: skip

# The same for calls that are counted on certain files only. Not fcntl: SQLite lets go of a lock by
# it, which fails in nature only where a lock is of several bytes, and holds it if it does.
FILE_ERRNOS: Final = {
    "openat": "EMFILE", "read": "EIO", "pread64": "EIO", "write": "ENOSPC", "pwrite64": "ENOSPC",
    "fsync": "EIO", "fdatasync": "EIO", "ftruncate": "EIO", "rename": "ENOSPC", "unlink": "EIO",
    "mkdir": "ENOSPC", "flock": "ENOLCK", "mmap": "ENOMEM", "getdents64": "EIO",
    "newfstatat": "EIO",
}  # fmt: skip

# By threads of their own, of which a recording of the main thread says nothing.
BY_OTHERS: Final = ("fsync", "fdatasync")
NTH_MAX: Final = 60
MISSES_MAX: Final = 2  # in a row: what follows a crash has not always the same order
JOBS: Final = 2

PHASES: Final[tuple[Phase, ...]] = (
    "start", "crash", "stop", "command", "store", "audit", "reload",
)  # fmt: skip


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


def try_commands(directory: Path) -> Iterator[Outcome]:
    for deed in injected_command.DEEDS:
        points = command_points(directory / f"{deed}-recording", deed, FILE_ERRNOS)
        desks = [Desk(directory / f"{deed}-{job}") for job in range(JOBS)]
        for desk in desks:
            desk.prepare(deed)
        yield from by_turns(desks, points, attempt_command)


def try_deeds(directory: Path, phase: Phase) -> Iterator[Outcome]:
    """On servers that serve all the while; started anew at the end, to see what they have kept."""
    boxes = [Box(directory / f"{phase}-{job}") for job in range(JOBS)]

    def try_call(box: Box, of: tuple[str, str]) -> list[Outcome]:
        (deed, call), outcomes = of, list[Outcome]()
        for nth in range(1, NTH_MAX):
            outcomes.append(attempt_deed(box, Point(phase, call, FILE_ERRNOS[call], nth, deed)))
            if not any(each.was_hit for each in outcomes[-MISSES_MAX:]):
                break
        return outcomes

    try:
        kinds = [(deed, call) for deed in injected_deed.DEEDS[phase] for call in FILE_ERRNOS]
        for outcomes in by_turns(boxes, kinds, try_call):
            yield from outcomes
        for box in boxes:
            end = Outcome(Point(phase, "none", "", 0, "a new start"))
            end.problems += box.restarted()
            yield end
    finally:
        for box in boxes:
            box.close()


def by_turns(
    places: Sequence[T], tasks: Sequence[S], attempt_at: Callable[[T, S], R]
) -> Iterator[R]:
    """Do all tasks, in order, each at the next place that is free."""
    free = SimpleQueue[T]()
    for place in places:
        free.put(place)

    def attempt_one(task: S) -> R:
        place = free.get()
        try:
            return attempt_at(place, task)
        finally:
            free.put(place)

    with ThreadPoolExecutor(len(places)) as pool:
        yield from pool.map(attempt_one, tasks)


def outcomes_of(phase: Phase, directory: Path) -> Iterator[Outcome]:
    if phase == "start":
        yield from try_all(directory, start_points(directory / "recording"))
    elif phase in {"crash", "stop"}:
        for call in ERRNOS:
            yield from try_until_missed(directory, phase, call)
    elif phase == "command":
        yield from try_commands(directory)
    else:
        yield from try_deeds(directory, phase)


def main(phases: Sequence[str]) -> int:
    begun_s, hit, bad = time.monotonic(), Counter[str](), Counter[str]()
    for phase in [each for each in PHASES if each in phases or not phases]:
        with tempfile.TemporaryDirectory(prefix="rbee-nth-") as folder:
            for outcome in outcomes_of(phase, Path(folder)):
                hit[phase] += outcome.was_hit
                bad[phase] += bool(outcome.problems)
                if outcome.was_hit or outcome.problems:
                    print("BAD " if outcome.problems else "good", outcome, flush=True)
        print(f"{phase}: {hit[phase]} failures, {bad[phase]} not taken as they should", flush=True)
    took_s = time.monotonic() - begun_s
    told = f"{hit.total()} failures, of which {bad.total()} were not taken as they should"
    print(f"{told}; {took_s:.0f} s")
    return 1 if bad.total() else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
