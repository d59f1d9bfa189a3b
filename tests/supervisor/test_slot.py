"""How a slot is kept filled, and how it stays empty, on a clock that costs no time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from rbee.config import RestartConfig
from rbee.errors import ExitCode
from rbee.supervisor.breaker import BreakerState
from rbee.supervisor.restart import Verdict
from rbee.supervisor.slot import Slot, SlotState, Surroundings, keep_filled
from rbee.supervisor.worker import Worker, WorkerExit, WorkerPlan
from tests.supervisor.fakes import FakeChild, FakeLaunch, Heard, NoLog, plan
from tests.supervisor.test_worker import LIMITS, Middle


class Place:
    """A slot and what it sees of its supervisor."""

    def __init__(self, *children: FakeChild) -> None:
        self.slot, self.launch = Slot(plan()), FakeLaunch(*children)
        self.heard, self.log = Heard(), NoLog()
        self.failed: list[Slot] = []

    def breaker(self) -> BreakerState:
        return self.slot.breaker(trio.current_time())

    def told(self, event: str) -> list[dict[str, object]]:
        return [fields for name, fields in self.log.events if name == event]


class SlowReports:
    """An evidence that takes its time to write."""

    async def secure(self, worker: Worker) -> None:
        return

    def report(
        self, plan: WorkerPlan, worker: Worker | None, ending: WorkerExit, verdict: Verdict
    ) -> str:
        return "crash"

    async def write(self, crash_id: str) -> None:
        await trio.sleep(0.9)

    def forget(self, worker: Worker) -> None:
        return


@asynccontextmanager
async def kept(
    place: Place, restart: RestartConfig, evidence: SlowReports | None = None
) -> AsyncIterator[None]:
    around = Surroundings(
        place.launch, LIMITS, restart, place.heard, Middle(), place.log,  # type: ignore[arg-type]
        evidence, place.failed.append,
    )  # fmt: skip
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_filled, place.slot, around)
        yield
        nursery.cancel_scope.cancel()


def crashing(count: int) -> list[FakeChild]:
    return [FakeChild(exit_after_s=1, signal=11) for _ in range(count)]


async def test_a_reset_fills_a_failed_slot_and_forgets_its_failures(
    autojump_clock: MockClock,
) -> None:
    place = Place(*crashing(4))
    async with kept(place, RestartConfig()):
        await trio.sleep(60)
        assert (place.slot.state, place.breaker()) == (SlotState.FAILED, BreakerState.OPEN)
        assert place.slot.is_hopeless
        assert place.failed == [place.slot]
        place.slot.reset()
        await trio.sleep(1)
        assert place.slot.worker is not None
        assert (place.slot.failures(trio.current_time()), place.breaker()) == (
            0,
            BreakerState.CLOSED,
        )
    [failed] = place.told("slot_failed")
    assert failed["cause"] == "crash"
    assert "rbee workers reset m-0" in str(failed["remedy"])


async def test_a_reset_ends_the_wait_and_leaves_a_good_worker_alone(
    autojump_clock: MockClock,
) -> None:
    place = Place(*crashing(1))
    async with kept(place, RestartConfig(delay_s_min=60)):
        await trio.sleep(10)
        assert place.slot.state is SlotState.WAITING
        place.slot.reset()
        await trio.sleep(1)
        worker = place.slot.worker
        assert worker is not None
        place.slot.reset()
        await trio.sleep(100)
        assert place.slot.worker is worker
    assert place.launch.launched_at_s == pytest.approx([0, 10])


async def test_only_a_slot_that_was_filled_again_was_restarted(autojump_clock: MockClock) -> None:
    place = Place()
    async with kept(place, RestartConfig()):
        await trio.sleep(1)
        place.slot.stop()
        await trio.sleep(1)
        assert (place.slot.state, place.slot.restarts) == (SlotState.STOPPED, 0)
        place.slot.restart()
        await trio.sleep(1)
        assert (place.slot.state, place.slot.restarts) == (SlotState.FILLED, 1)
        place.slot.restart()
        await trio.sleep(1)
        assert place.slot.restarts == 2


async def test_the_next_worker_does_not_wait_for_the_report_on_the_last(
    autojump_clock: MockClock,
) -> None:
    place = Place(*crashing(2))
    async with kept(place, RestartConfig(delay_s_min=0), SlowReports()):
        await trio.sleep(10)
    assert place.launch.launched_at_s == pytest.approx([0, 1, 2], abs=0.05)


async def test_an_operators_stop_while_a_failure_is_reported_stops_the_slot(
    autojump_clock: MockClock,
) -> None:
    place = Place(*crashing(1))
    async with kept(place, RestartConfig(), SlowReports()):
        await trio.sleep(1.5)
        place.slot.stop()
        await trio.sleep(60)
        assert place.slot.state is SlotState.STOPPED
        assert not place.slot.is_hopeless
    assert len(place.launch.launched) == 1


async def test_a_slot_is_over_until_somebody_asks_for_a_worker(autojump_clock: MockClock) -> None:
    place = Place()
    async with kept(place, RestartConfig()):
        await trio.sleep(1)
        place.slot.stop()
        await trio.sleep(60)
        assert place.slot.is_over
        place.slot.restart()
        for _ in range(20):  # who waits for the model is not sent away while the worker starts
            assert not place.slot.is_over
            await trio.lowlevel.checkpoint()
        assert place.slot.worker is not None


async def test_after_the_cool_down_one_worker_is_tried(autojump_clock: MockClock) -> None:
    place = Place(*crashing(5))
    async with kept(place, RestartConfig(cooldown_s=30)):
        await trio.sleep(12)
        assert place.slot.state is SlotState.FAILED
        assert not place.slot.is_hopeless
        failed_s = place.launch.reaped_at_s[-1]
        await trio.sleep(31)
        trial_s = place.launch.launched_at_s[4]
        assert trial_s == pytest.approx(failed_s + 30, abs=0.05)
        assert place.slot.state is SlotState.FAILED, "it crashed, too"
        await trio.sleep(30)
        assert place.breaker() is BreakerState.HALF_OPEN
        await trio.sleep(300)
        assert place.breaker() is BreakerState.CLOSED
    assert len(place.told("slot_on_trial")) == 2


@pytest.mark.parametrize("_again", range(10))  # which of both runs first is trio's to choose
async def test_a_reset_at_the_very_end_of_the_cool_down_counts(
    _again: int, autojump_clock: MockClock
) -> None:
    place = Place(*crashing(4))
    async with kept(place, RestartConfig(cooldown_s=30)):
        await trio.sleep(12)
        assert place.slot.refill_s is not None
        await trio.sleep_until(place.slot.refill_s)
        place.slot.reset()
        await trio.sleep(1)
        assert place.slot.worker is not None
        assert place.breaker() is BreakerState.CLOSED


async def test_failures_are_forgotten_while_the_next_worker_serves(
    autojump_clock: MockClock,
) -> None:
    place = Place(*crashing(2))
    async with kept(place, RestartConfig(forget_after_s=20)):
        await trio.sleep(10)
        assert place.slot.worker is not None
        assert place.slot.failures(trio.current_time()) == 2
        await trio.sleep(20)
        assert place.slot.failures(trio.current_time()) == 0


async def test_crashes_that_are_a_requests_doing_are_not_counted(
    autojump_clock: MockClock,
) -> None:
    place = Place(*crashing(20))

    class Pardoning(Heard):
        def worker_gone(self, worker: Worker, ending: WorkerExit) -> None:
            self.pardoned += 1

    place.heard = Pardoning()
    async with kept(place, RestartConfig()):
        await trio.sleep(60)
        assert place.slot.worker is not None
        assert place.slot.failures(trio.current_time()) == 0
    assert {event["restart_in_s"] for event in place.told("worker_failed")} == {1.0}


async def test_a_slot_that_a_request_closed_is_filled_again_once_that_is_known(
    autojump_clock: MockClock,
) -> None:
    place = Place(*crashing(4))
    async with kept(place, RestartConfig()):
        await trio.sleep(20)
        assert place.slot.state is SlotState.FAILED
        place.heard.pardoned = 1
        place.slot.pardon()
        await trio.sleep(5)
        assert place.slot.worker is not None
        assert place.slot.failures(trio.current_time()) == 3
        assert place.breaker() is BreakerState.CLOSED


async def test_a_pardon_that_changes_nothing_leaves_the_slot_to_the_operator(
    autojump_clock: MockClock,
) -> None:
    place = Place(FakeChild(exit_after_s=0, exit_code=ExitCode.CONFIG))
    async with kept(place, RestartConfig()):
        await trio.sleep(20)
        place.heard.pardoned = 1
        place.slot.pardon()
        await trio.sleep(20)
        assert place.slot.is_over
        assert len(place.heard.failed_slots) == 2, "who came in between is told"
        place.slot.reset()
        await trio.sleep(1)
        assert place.slot.worker is not None


@pytest.mark.parametrize(
    ("child", "cause", "restarts"),
    [
        (FakeChild(exit_after_s=0, exit_code=ExitCode.CONFIG), "bad_config", 0),
        (FakeChild(exit_after_s=0, exit_code=ExitCode.OUT_OF_MEMORY), "out_of_memory", 0),
        (FakeChild(exit_after_s=0, signal=9, cause="out_of_memory: x"), "out_of_memory", 0),
        (FakeChild(load_s=100), "load_failure", 1),
        (FakeChild(beats_until_s=1), "hang", 1),
        (FakeChild(exit_after_s=2, signal=6), "crash", 1),
    ],
)
async def test_each_cause_is_told_and_only_what_may_help_is_done(
    child: FakeChild, cause: str, restarts: int, autojump_clock: MockClock
) -> None:
    place = Place(child)
    async with kept(place, RestartConfig()):
        await trio.sleep(50)
        assert place.slot.failure is not None
        assert place.slot.failure.cause.value == cause
    assert len(place.launch.launched) == 1 + restarts
    assert place.told("worker_failed")[0]["cause"] == cause
