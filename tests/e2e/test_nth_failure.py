"""A system call that fails costs a server nothing, or its start, in one line; never a hang.

Each of these has once been answered by a traceback or by an end, or is the first of its kind.
`python -m tests.e2e.nth_failure` tries them all.
"""

from pathlib import Path

import pytest

from tests.e2e.injection import STRACE, Point, attempt

REFUSES = [
    Point("start", "mkdir", "ENOSPC", 4),  # the run directory, behind the audit log's folder
    Point("start", "clone3", "EAGAIN", 1),  # the log's thread
    Point("start", "eventfd2", "EMFILE", 1),  # ZeroMQ's context
    Point("start", "socketpair", "EMFILE", 1),  # trio's
]
GOES_ON = [
    Point("start", "mkdir", "ENOSPC", 1),  # the audit log's folder
    Point("crash", "vfork", "EAGAIN", 1),  # a worker
    Point("crash", "getdents64", "EIO", 1),  # the look for strays
    Point("crash", "rename", "ENOSPC", 1),
    Point("stop", "getdents64", "EIO", 5),  # the folder of a cgroup, where there are any
]

pytestmark = pytest.mark.skipif(STRACE is None, reason="strace is not installed")


@pytest.fixture(autouse=True)
def _no_coverage(monkeypatch: pytest.MonkeyPatch) -> None:
    """What measures coverage makes system calls of its own, and they would be counted."""
    for name in ("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("point", REFUSES, ids=str)
def test_a_start_that_is_refused_ends_with_one_line_and_its_code(
    tmp_path: Path, point: Point
) -> None:
    outcome = attempt(tmp_path / "trial", point)
    assert outcome.was_hit
    assert outcome.problems == [], outcome.log
    assert outcome.how.startswith("ends, 7")


@pytest.mark.parametrize("point", GOES_ON, ids=str)
def test_a_server_goes_on_without_what_it_can_do_without(tmp_path: Path, point: Point) -> None:
    outcome = attempt(tmp_path / "trial", point)
    assert outcome.was_hit
    assert outcome.problems == [], outcome.log
    assert outcome.how.startswith("serves, 0")
