"""What SIGHUP reads again: all or nothing, recorded before it is done, and not too often."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from rbee.errors import AuditError, ConfigError
from rbee.supervisor.reload import EVERY_S_MIN, Reloader
from tests.http_server.harness import RecordingLog


class Part:
    """Is changed each time, or is broken."""

    def __init__(self, key: str, happened: list[str], problem: str = "") -> None:
        self._key = key
        self._happened = happened
        self.problem = problem

    def prepare(self) -> tuple[str, Callable[[], None]] | None:
        if self.problem:
            raise ConfigError(self.problem)
        self._happened.append(f"{self._key} read")
        return self._key, lambda: self._happened.append(f"{self._key} in force")


class Record:
    def __init__(self, happened: list[str], *, is_full: bool = False) -> None:
        self._happened = happened
        self._is_full = is_full

    async def config_reloaded(self, changed: tuple[str, ...]) -> None:
        await self._record(f"recorded {' '.join(changed)}")

    async def config_rejected(self, problem: str) -> None:
        await self._record(f"rejected {problem}")

    async def _record(self, what: str) -> None:
        await trio.lowlevel.checkpoint()
        if self._is_full:
            raise AuditError("the disk is full")
        self._happened.append(what)


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of these tests does not wait for threads."""

    async def run_here(
        function: Callable[[], Any], *, limiter: trio.CapacityLimiter, abandon_on_cancel: bool
    ) -> Any:
        assert abandon_on_cancel
        assert limiter.total_tokens == 1
        await trio.lowlevel.checkpoint()
        return function()

    monkeypatch.setattr(trio.to_thread, "run_sync", run_here)


async def run_until(reloader: Reloader, seconds: float) -> None:
    with trio.move_on_after(seconds):
        await reloader.keep_reloading()


async def test_all_is_read_then_recorded_then_in_force(autojump_clock: MockClock) -> None:
    happened: list[str] = []
    parts = [Part("a", happened), Part("b", happened)]
    log = RecordingLog()
    reloader = Reloader(parts, Record(happened), log)
    reloader.ask()
    await run_until(reloader, 0.5)
    assert happened == ["a read", "b read", "recorded a b", "a in force", "b in force"]
    assert log.lines == [("info", "config_reloaded", {"changed": ["a", "b"]})]


async def test_if_one_part_cannot_be_used_nothing_changes(autojump_clock: MockClock) -> None:
    happened: list[str] = []
    broken = Part("b", happened, problem="b is broken")
    log = RecordingLog()
    reloader = Reloader([Part("a", happened), broken], Record(happened), log)
    reloader.ask()
    await run_until(reloader, 0.5)
    assert happened == ["a read", "rejected b is broken"]
    assert log.errors == ["config_rejected"]


async def test_what_cannot_be_recorded_is_not_done(autojump_clock: MockClock) -> None:
    happened: list[str] = []
    log = RecordingLog()
    reloader = Reloader([Part("a", happened)], Record(happened, is_full=True), log)
    reloader.ask()
    await run_until(reloader, 0.5)
    assert happened == ["a read"]
    assert log.errors == ["config_rejected", "config_rejection_not_recorded"]


async def test_a_file_on_a_disk_that_hangs_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()  # a real thread, which hangs
    thaws = threading.Event()
    part = Part("a", [])
    monkeypatch.setattr(part, "prepare", lambda: thaws.wait(10) and None)
    reloader = Reloader([part], Record([]), RecordingLog())
    reloader.ask()
    try:
        begun_s = trio.current_time()
        await run_until(reloader, 0.05)
        assert trio.current_time() - begun_s < 5
    finally:
        thaws.set()


async def test_a_storm_is_one_reload_at_once_and_one_each_second(autojump_clock: MockClock) -> None:
    happened: list[str] = []
    reloader = Reloader([Part("a", happened)], Record(happened), RecordingLog())

    async def storm() -> None:
        while True:
            reloader.ask()
            await trio.sleep(0.001)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(storm)
        await run_until(reloader, 3.5 * EVERY_S_MIN)
        nursery.cancel_scope.cancel()
    assert happened.count("a in force") == 4
