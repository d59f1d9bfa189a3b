"""Each call to the disk fails in turn, once or for a while: nothing is lost, doubled or hidden."""

import errno
import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rbee.audit.disk import RealDisk
from rbee.audit.log_file import LogFile
from rbee.audit.place import place_in
from rbee.audit.reading import verify
from rbee.audit.verify import FlawKind
from tests.audit.log import SMALL, events, good, note, numbers, trail_in


class FailingDisk(RealDisk):
    """Fails ``times`` calls, from the ``first`` on. A write that fails may have begun."""

    def __init__(self, first: int, times: int, code: int) -> None:
        self._first, self._times, self._code = first, times, code
        self.calls = 0
        self.failed: list[str] = []

    def _may_fail(self, name: str) -> bool:
        self.calls += 1
        if self._first <= self.calls < self._first + self._times:
            self.failed.append(name)
            return True
        return False

    def _fail(self) -> OSError:
        return OSError(self._code, os.strerror(self._code))

    def make_folder(self, folder: Path) -> None:
        if self._may_fail("make_folder"):
            raise self._fail()
        super().make_folder(folder)

    def open(self, path: Path, flags: int) -> int:
        if self._may_fail("open"):
            raise self._fail()
        return super().open(path, flags)

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        if self._may_fail("write"):
            super().write(descriptor, data[: len(data) // 2])
            raise self._fail()
        return super().write(descriptor, data)

    def write_at(self, descriptor: int, data: bytes, offset: int) -> int:
        if self._may_fail("write_at"):
            super().write_at(descriptor, data[: len(data) // 2], offset)
            raise self._fail()
        return super().write_at(descriptor, data, offset)

    def truncate(self, descriptor: int, size: int) -> None:
        if self._may_fail("truncate"):
            raise self._fail()
        super().truncate(descriptor, size)

    def sync(self, descriptor: int) -> None:
        if self._may_fail("sync"):
            raise self._fail()
        super().sync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        if self._may_fail("rename"):
            raise self._fail()
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        if self._may_fail("unlink"):
            raise self._fail()
        super().unlink(path)


ENTRIES = 30


def write_with(state_dir: Path, disk: FailingDisk) -> int:
    """Two lives of a trail that rotates and prunes. Each step is tried until it goes.

    Returns:
      How many entries had been acknowledged before the first trouble.
    """
    before_trouble = 0
    number = 0
    for _ in range(2):
        trail = trail_in(state_dir, SMALL, disk=disk)
        for _ in range(ENTRIES // 2):
            number += 1
            until_done(disk, lambda: trail.append([note(number)]))  # noqa: B023
            until_done(disk, trail.sync)
            until_done(disk, trail.anchor)
            if not disk.failed:
                before_trouble = number
        trail.close()
    return before_trouble


def until_done(disk: FailingDisk, step: Callable[[], None]) -> None:
    for _ in range(50):
        try:
            step()
        except OSError:
            assert disk.failed
        else:
            return
    raise AssertionError("it did not heal")


def calls_in_all(state_dir: Path) -> int:
    disk = FailingDisk(10**9, 1, errno.EIO)
    write_with(state_dir, disk)
    return disk.calls


@pytest.mark.parametrize("times", [1, 2, 7])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=["full", "broken"])
def test_any_failure_of_the_disk_is_healed_and_hides_nothing(
    times: int, code: int, quick_path: Path
) -> None:
    total = calls_in_all(quick_path / "calm")
    assert total > 150
    for first in range(1, total, 1 if times == 1 else 5):
        state_dir = quick_path / str(first)
        disk = FailingDisk(first, times, code)
        before_trouble = write_with(state_dir, disk)
        assert disk.failed
        place = place_in(state_dir)
        verdict = verify(place)
        told = events(place)
        trouble = (first, disk.failed, verdict.flaw, told)
        # Whatever is left is in order and whole, from the oldest file that is kept.
        found = numbers(place)
        assert found[-1] == ENTRIES, trouble
        once = [number for number, _ in itertools.groupby(found)]
        assert once == list(range(once[0], ENTRIES + 1)), trouble
        assert once[0] <= max(before_trouble, 1) + ENTRIES, trouble
        if code == errno.ENOSPC and "sync" not in disk.failed:
            assert verdict.flaw is None, trouble  # nobody can tell that there was any
        if verdict.flaw is None:
            continue
        # What is not as it was is told by the log itself, at the place where it happened.
        assert verdict.flaw.kind in (FlawKind.DAMAGED, FlawKind.TORN, FlawKind.MALFORMED), trouble
        assert "audit.damaged" in told or "audit.repaired" in told, trouble


def test_a_file_whose_end_is_refused_is_closed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trail, close = trail_in(tmp_path), LogFile.close
    trail.append([note(1)])

    def refuse(file: LogFile) -> None:
        close(file)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    trail.rotate_soon("disk_low")
    with monkeypatch.context() as patched:
        patched.setattr(LogFile, "close", refuse)
        with pytest.raises(OSError, match="Input/output"):
            trail.append([note(2)])
    other = os.open(tmp_path, os.O_RDONLY)  # as likely as not by the number that is free now
    trail.append([note(2)])
    trail.close()
    os.close(other)  # nobody else has
    assert numbers(place_in(tmp_path)) == [1, 2]


def test_a_calm_disk_needs_no_healing(quick_path: Path) -> None:
    write_with(quick_path, FailingDisk(10**9, 1, errno.EIO))
    good(place_in(quick_path))
    assert "audit.damaged" not in events(place_in(quick_path))
