"""How a shutdown is measured, and handed to the next server."""

import os
import resource
from collections import Counter
from pathlib import Path

import pytest
import trio

from rbee.supervisor.last_shutdown import FILE, WRITE_S_MAX, Stopwatch, leave, take
from rbee.supervisor.views import ShutdownView
from tests.supervisor.fakes import NoLog

VIEW = ShutdownView(1.5, 0.25, 2.0, cut_requests=1, killed_workers=2)


def test_the_parts_of_a_shutdown_are_measured_one_after_the_other() -> None:
    times = iter([10.0, 12.5, 13.0, 20.25])
    kills = Counter({"a-0": 1})
    watch = Stopwatch(lambda: next(times), lambda: Counter(kills))
    watch.begun()
    watch.drained(cut_requests=3)
    watch.closed()
    kills.update({"a-0": 1, "a-1": 2})
    told = watch.stopped()
    assert told == ShutdownView(2.5, 0.5, 7.25, cut_requests=3, killed_workers=2)


def test_what_was_killed_before_the_shutdown_is_none_of_its() -> None:
    watch = Stopwatch(lambda: 0.0, lambda: Counter({"a-0": 4}))
    watch.begun()
    assert watch.stopped().killed_workers == 0


async def test_the_next_server_takes_it_and_the_one_after_that_finds_none(tmp_path: Path) -> None:
    log = NoLog()
    await leave(VIEW, tmp_path, log)
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    assert take(tmp_path, log) == VIEW
    assert take(tmp_path, log) is None
    assert list(tmp_path.iterdir()) == []
    assert log.events == []


async def test_a_folder_that_takes_nothing_costs_the_file_only(tmp_path: Path) -> None:
    log = NoLog()
    await leave(VIEW, tmp_path / "none", log)
    assert [event for event, _ in log.events] == ["last_shutdown_not_kept"]


async def test_a_disk_that_is_full_keeps_no_draft(tmp_path: Path) -> None:
    log = NoLog()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        await leave(VIEW, tmp_path, log)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert log.events == [("last_shutdown_not_kept", {"problem": "File too large"})]
    assert list(tmp_path.iterdir()) == []


async def test_a_disk_that_hangs_costs_a_second(tmp_path: Path) -> None:
    log = NoLog()
    draft = (tmp_path / FILE).with_suffix(".part")
    os.mkfifo(draft)  # to open it waits for a reader
    begun_s = trio.current_time()
    await leave(VIEW, tmp_path, log)
    assert trio.current_time() - begun_s < 3 * WRITE_S_MAX
    assert log.events == [("last_shutdown_not_kept", {"problem": "not within 1 s"})]
    os.close(os.open(draft, os.O_RDONLY | os.O_NONBLOCK))  # the thread may go


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"drain_s": "long"}', b"x" * 10_000])
def test_a_file_that_is_none_of_ours_is_told_and_means_nothing(tmp_path: Path, text: bytes) -> None:
    log = NoLog()
    (tmp_path / FILE).write_bytes(text)
    assert take(tmp_path, log) is None
    assert [event for event, _ in log.events] == ["last_shutdown_not_known"]
    assert not (tmp_path / FILE).exists()


async def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"{}")
    (tmp_path / FILE).symlink_to(tmp_path / "other")
    log = NoLog()
    assert take(tmp_path, log) is None
    assert not (tmp_path / FILE).is_symlink()
    await leave(VIEW, tmp_path, log)
    assert (tmp_path / "other").read_bytes() == b"{}"
    assert take(tmp_path, log) == VIEW
