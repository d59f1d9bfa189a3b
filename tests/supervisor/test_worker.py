"""How a worker lives and dies, on a clock that costs no time."""

import math

import pytest
import trio
from trio.testing import MockClock

from rbee.ask import Ask
from rbee.config import RestartConfig, WorkerConfig
from rbee.supervisor.lifecycle import WorkerState
from rbee.supervisor.slot import Slot, SlotState, Surroundings, keep_filled
from rbee.supervisor.worker import Worker, WorkerExit
from rbee.supervisor.worker_life import TAKING_S_MAX, run_worker
from rbee.wire import Delta, Step
from tests.supervisor.fakes import FakeChild, FakeLaunch, Heard, NoLog, plan

LIMITS = WorkerConfig()


class Middle:
    """A random source without chance: delays are exact."""

    def random(self) -> float:
        return 0.5


@pytest.mark.parametrize(
    ("child", "fault", "last_state", "reaped_at_s"),
    [
        (FakeChild(hello_after_s=math.inf), "said no hello for 60 s", WorkerState.STARTING, 60),
        (FakeChild(load_s=math.inf), "no progress in loading for 30 s", WorkerState.LOADING, 30),
        (FakeChild(hello_after_s=2, nonsense=True), "expected 2 frames", WorkerState.STARTING, 2),
        (FakeChild(beats_until_s=20), "no beat for 10.25 s", WorkerState.READY, 25.25),
        (FakeChild(beats_until_s=0, load_s=20), "no beat", WorkerState.LOADING, 10.25),
    ],
    ids=["no hello", "stuck load", "nonsense", "silent", "silent while loading"],
)
async def test_worker_that_fails_is_killed_and_reaped(
    child: FakeChild,
    fault: str,
    last_state: WorkerState,
    reaped_at_s: float,
    autojump_clock: MockClock,
) -> None:
    launch, heard = FakeLaunch(child), Heard()
    ending = await run_worker(launch, plan(), LIMITS, heard, lambda _worker: None)
    assert fault in ending.fault
    assert ending.last_state is last_state
    assert ending.signal == 9
    assert child.killed == [ending.fault]
    assert launch.reaped_at_s == pytest.approx([reaped_at_s])
    assert heard.endings == [ending]


async def test_worker_that_crashes_ends_with_its_signal(autojump_clock: MockClock) -> None:
    launch = FakeLaunch(FakeChild(exit_after_s=5, signal=11))
    ending = await run_worker(launch, plan(), LIMITS, Heard(), lambda _worker: None)
    assert ending == WorkerExit(WorkerState.READY, None, 11, "", "", False, ending.ready_for_s)
    assert ending.ready_for_s == pytest.approx(5, abs=0.05)
    assert str(ending) == "ended by signal 11"


async def test_worker_that_cannot_be_started_is_a_failure_not_an_exception(
    autojump_clock: MockClock,
) -> None:
    async def launch(worker_id: str, *, task_status: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    ending = await run_worker(launch, plan(), LIMITS, Heard(), lambda _worker: None)
    assert ending.fault == "cannot be started: Resource temporarily unavailable"


async def test_a_drained_worker_ends_as_asked(autojump_clock: MockClock) -> None:
    heard = Heard(on_ready=lambda worker: worker.drain())
    ending = await run_worker(FakeLaunch(), plan(), LIMITS, heard, lambda _worker: None)
    assert ending.was_asked
    assert ending.said == "drained"
    assert ending.last_state is WorkerState.DRAINING


class Hung(FakeChild):
    """It beats, and does nothing that it is asked for."""

    async def _obey(self, frames: list[bytes], nursery: trio.Nursery) -> None:
        self.got.append(self._dialogue.receive(frames))


async def test_who_hangs_gains_no_time_by_being_drained(autojump_clock: MockClock) -> None:
    launch, held = FakeLaunch(Hung()), list[Worker]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_worker, launch, plan(), LIMITS, Heard(), held.append)
        await trio.sleep(1)
        held[0].generate(1, Ask("m", prompt="x"), 300, "c")
        await trio.sleep(40)
        held[0].drain()
    assert launch.reaped_at_s == pytest.approx([1 + LIMITS.step_stall_s])


async def test_cancelling_run_worker_reaps_the_process_and_tells(
    autojump_clock: MockClock,
) -> None:
    launch, heard = FakeLaunch(), Heard()
    with trio.move_on_after(7):
        await run_worker(launch, plan(), LIMITS, heard, lambda _worker: None)
    assert launch.reaped_at_s == [7]
    assert [ending.last_state for ending in heard.endings] == [WorkerState.READY]


async def test_who_is_stopped_at_the_end_has_not_crashed(autojump_clock: MockClock) -> None:
    launch, heard = FakeLaunch(FakeChild()), Heard()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_worker, launch, plan(), LIMITS, heard, lambda _worker: None)
        await trio.sleep(20)
        nursery.cancel_scope.cancel()
    [ending] = heard.endings
    assert ending.was_asked


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_others_have_their_turn_between_the_messages_of_a_worker_and_none_is_lost(
    is_cancelled: bool, autojump_clock: MockClock
) -> None:
    class Slow(Heard):
        def step_done(self, worker: Worker, step: Step) -> None:
            super().step_done(worker, step)
            autojump_clock.jump(TAKING_S_MAX)

    child, heard, held, seen = FakeChild(answers=False), Slow(), list[Worker](), list[int]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_worker, FakeLaunch(child), plan(), LIMITS, heard, held.append)
        await trio.sleep(1)
        held[0].generate(1, Ask(model="m", prompt="p"), 300, "cid")
        await trio.testing.wait_all_tasks_blocked()
        for index in range(5):
            child.say(Step(index, (Delta(1, index, (index,), "x"),)))
        while not seen or seen[-1] < 5:
            await trio.lowlevel.checkpoint()
            seen.append(len(heard.steps))
            if is_cancelled and 2 <= seen[-1] < 5:
                break
        nursery.cancel_scope.cancel()
    assert not {1, 2, 3, 4}.isdisjoint(seen)
    assert [step.step for step in heard.steps] == list(range(len(heard.steps)))
    waiting = 0
    while child.receive_nowait() is not None:
        waiting += 1
    assert len(heard.steps) + waiting == 5


async def test_a_supervisor_that_was_suspended_blames_no_worker(mock_clock: MockClock) -> None:
    launch, heard = FakeLaunch(FakeChild(beats_until_s=1)), Heard()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_worker, launch, plan(), LIMITS, heard, lambda _worker: None)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(3600)  # nothing ran for an hour, this process neither
        await trio.testing.wait_all_tasks_blocked()
        assert heard.endings == []
        for _ in range(22):  # silence from now on counts
            mock_clock.jump(0.5)
            await trio.testing.wait_all_tasks_blocked()
        assert [ending.fault for ending in heard.endings] == ["hung: no beat for 10.25 s"]


def surroundings(launch: FakeLaunch, heard: Heard, restart: RestartConfig) -> Surroundings:
    return Surroundings(launch, LIMITS, restart, heard, Middle(), NoLog())  # type: ignore[arg-type]


async def test_restarts_wait_twice_as_long_each_time_then_give_up(
    autojump_clock: MockClock,
) -> None:
    crashing = [FakeChild(exit_after_s=0, exit_code=1) for _ in range(4)]
    launch, heard, slot = FakeLaunch(*crashing), Heard(), Slot(plan())
    with trio.move_on_after(1000):
        await keep_filled(slot, surroundings(launch, heard, RestartConfig()))
    assert launch.launched_at_s == pytest.approx([0, 1, 1 + 2, 1 + 2 + 4], abs=0.1)
    assert slot.state is SlotState.FAILED
    assert heard.failed_slots == ["m-0"]


async def test_an_operators_restart_fills_a_failed_slot_and_forgets_its_failures(
    autojump_clock: MockClock,
) -> None:
    crashing = [FakeChild(exit_after_s=0, exit_code=1) for _ in range(4)]
    launch, slot = FakeLaunch(*crashing), Slot(plan())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_filled, slot, surroundings(launch, Heard(), RestartConfig()))
        await trio.sleep(100)
        assert slot.state is SlotState.FAILED
        slot.restart()
        await trio.sleep(1)
        assert slot.worker is not None
        assert slot.worker.state is WorkerState.READY
        assert slot.failures(trio.current_time()) == 0
        nursery.cancel_scope.cancel()


async def test_an_operators_restart_ends_the_wait(autojump_clock: MockClock) -> None:
    launch, slot = FakeLaunch(FakeChild(exit_after_s=10, exit_code=1)), Slot(plan())
    restart = RestartConfig(delay_s_min=60)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_filled, slot, surroundings(launch, Heard(), restart))
        await trio.sleep(20)
        assert slot.state is SlotState.WAITING
        slot.restart()
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert launch.launched_at_s == [0, 20]


async def test_a_stopped_slot_stays_empty_until_it_is_restarted(autojump_clock: MockClock) -> None:
    launch, slot = FakeLaunch(), Slot(plan())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_filled, slot, surroundings(launch, Heard(), RestartConfig()))
        await trio.sleep(10)
        slot.stop()
        await trio.sleep(1000)
        assert slot.state is SlotState.STOPPED
        assert slot.worker is None
        slot.restart()
        await trio.sleep(1)
        assert slot.worker is not None
        nursery.cancel_scope.cancel()
    assert launch.launched_at_s == [0, 1010]


async def test_a_day_of_heartbeats_leaves_a_good_worker_alone(autojump_clock: MockClock) -> None:
    launch, held = FakeLaunch(), list[Worker]()
    with trio.move_on_after(24 * 3600):
        await run_worker(launch, plan(), LIMITS, Heard(), held.append)
    assert held[0].beats == 24 * 3600 / 5
    assert launch.launched[0].killed == []
