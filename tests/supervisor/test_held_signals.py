"""Signals that are blocked are heard in their turn, and what they mean for a shutdown."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from rbee.signal_mask import HELD, hold_back, let_through
from rbee.supervisor.held_signals import HeldSignals
from rbee.supervisor.signals import Ending, watch_signals
from tests.http_server.harness import RecordingLog


@pytest.fixture(autouse=True)
def _held_back() -> Iterator[None]:
    hold_back()
    try:
        yield
    finally:
        for number in signal.sigpending() & set(HELD):
            signal.sigwait({number})
        let_through()


class Asked:
    """An `Ending`, and what came of it."""

    def __init__(self) -> None:
        self.begun = 0
        self.log = RecordingLog()
        self.ending = Ending(self._begin, lambda: 0, self.log)

    def _begin(self) -> None:
        self.begun += 1

    @property
    def happened(self) -> list[tuple[str, str]]:
        return [(event, fields["signal"]) for _, event, fields in self.log.lines]


async def test_what_came_before_anybody_listened_is_heard() -> None:
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)
    with HeldSignals(signal.SIGTERM, signal.SIGINT) as signals, trio.fail_after(5):
        assert {await signals.wait(), await signals.wait()} == {signal.SIGTERM, signal.SIGINT}


async def test_each_is_heard_by_who_listens_for_it_and_stays_for_it() -> None:
    with HeldSignals(signal.SIGHUP) as hang_ups, HeldSignals(signal.SIGTERM) as ends:
        signal.raise_signal(signal.SIGHUP)
        with trio.move_on_after(0.02) as waiting:
            await ends.wait()
        assert waiting.cancelled_caught
        with trio.fail_after(5):
            assert await hang_ups.wait() is signal.SIGHUP


async def test_the_first_begins_the_second_hurries_and_later_ones_end_nobody() -> None:
    asked = Asked()
    async with trio.open_nursery() as nursery:
        await nursery.start(watch_signals, asked.ending)
        signal.raise_signal(signal.SIGTERM)
        with trio.fail_after(5):
            await asked.ending.drain_asked.wait()
        assert not asked.ending.hurry.is_set()
        signal.raise_signal(signal.SIGTERM)
        with trio.fail_after(5):
            await asked.ending.hurry.wait()
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)
    assert asked.happened == [("shutdown_begun", "SIGTERM"), ("shutdown_hurried", "SIGTERM")]
    assert asked.begun == 1


async def test_a_server_without_hope_ends_in_time_and_a_signal_hurries_it() -> None:
    asked = Asked()
    async with trio.open_nursery() as nursery:
        await nursery.start(watch_signals, asked.ending)
        asked.ending.give_up()
        assert asked.begun == 1
        assert asked.ending.hopeless.is_set()
        assert asked.ending.drain_asked.is_set()
        signal.raise_signal(signal.SIGTERM)
        with trio.fail_after(5):
            await asked.ending.hurry.wait()


def test_hope_that_is_lost_after_a_signal_is_no_reason_for_the_end() -> None:
    asked = Asked()
    asked.ending.begin("SIGTERM")
    asked.ending.give_up()
    assert not asked.ending.hopeless.is_set()
    assert asked.begun == 1
    assert asked.log.errors == []


def test_who_lets_them_through_has_none_of_them_blocked() -> None:
    let_through()
    status = Path("/proc/self/status").read_text("ascii")
    blocked = int(status.partition("SigBlk:")[2].split()[0], 16)
    assert not any(blocked >> (number - 1) & 1 for number in HELD)
