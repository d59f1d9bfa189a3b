"""A system call that fails costs a deed wholly or not at all, and a server never its keys.

Each of these has once gone wrong, or is the first of its kind. `python -m tests.e2e.nth_failure`
tries them all.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import needs_openssl
from tests.e2e.box import Box
from tests.e2e.injected_command import Desk, attempt_command
from tests.e2e.injected_deed import attempt_deed
from tests.e2e.injection import STRACE, Point
from tests.e2e.test_nth_failure import _no_coverage

__all__ = ["_no_coverage"]  # a fixture

COMMANDS = [
    (Point("command", "pread64", "EIO", 4, "make"), 0),  # "broken" is what cannot be read
    (Point("command", "write", "ENOSPC", 3, "make"), 74),  # nobody has seen the key
    (Point("command", "openat", "EMFILE", 9, "init"), 74),  # the file for the key
]
DEEDS = [
    Point("store", "fdatasync", "EIO", 1, "rotate"),
    Point("audit", "openat", "EMFILE", 3, "begin a file"),  # it wrote to a closed descriptor
    Point("audit", "fsync", "EIO", 1, "record"),
    Point("reload", "openat", "EMFILE", 4, "read"),
    Point("reload", "write", "ENOSPC", 1, "record"),
    Point("store", "pread64", "EIO", 5, "start"),  # a store that was put aside for it
]

pytestmark = [
    needs_openssl, pytest.mark.skipif(STRACE is None, reason="strace is not installed"),
]  # fmt: skip


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    box = Box(tmp_path_factory.mktemp("deeds") / "box")
    try:
        yield box
        assert box.restarted() == []
    finally:
        box.close()


@pytest.mark.parametrize(("point", "code"), COMMANDS, ids=str)
def test_a_command_does_all_of_it_or_nothing(tmp_path: Path, point: Point, code: int) -> None:
    desk = Desk(tmp_path / "desk")
    desk.prepare(point.deed)
    outcome = attempt_command(desk, point)
    assert outcome.was_hit
    assert outcome.problems == [], outcome.how
    assert outcome.how.startswith(f"{code} ")


@pytest.mark.parametrize("point", DEEDS, ids=str)
def test_a_server_does_all_of_it_or_nothing_and_serves_on(box: Box, point: Point) -> None:
    outcome = attempt_deed(box, point)
    assert outcome.was_hit
    assert outcome.problems == [], outcome.log
