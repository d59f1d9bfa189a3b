"""What must not reach beyond one worker, one slot or one request, on a clock that costs no time."""

import math

import pytest
import trio
from trio.testing import MockClock

from rbee.config import RestartConfig, WorkerConfig
from rbee.errors import ErrorCode, LinkFullError, RequestError
from rbee.supervisor.child import Child
from rbee.supervisor.lifecycle import WorkerState
from rbee.supervisor.slot import Slot, SlotState, keep_filled
from rbee.supervisor.worker import Worker
from rbee.supervisor.worker_life import LOST_AFTER_S, run_worker
from rbee.wire import Beat, Bye, Delta, Drain, Generate, Phase, Step, encode
from tests.supervisor.fakes import FakeChild, FakeLaunch, Heard, plan
from tests.supervisor.test_pool import ASK, Collected, pool_of, submit
from tests.supervisor.test_worker import surroundings

LIMITS = WorkerConfig()


async def test_a_worker_that_said_bye_gets_no_more_requests(autojump_clock: MockClock) -> None:
    async with pool_of(FakeChild(exit_after_s=20)) as (pool, launch, _slots):
        launch.launched[0].say(Bye("cannot go on", 81))
        await trio.sleep(1)  # it takes its time to end
        sink, _ = submit(pool)
        assert pool.queued == 1
        await trio.sleep(60)
        assert sink.text == "0 1 2 "


async def test_a_killed_worker_gets_no_more_requests(autojump_clock: MockClock) -> None:
    dying = FakeChild(beats_until_s=1, exit_after_s=30, signal=9, survives=True)
    async with pool_of(dying, slots=2) as (pool, _, _slots):
        await trio.sleep(15)
        assert dying.killed
        sinks = [submit(pool)[0] for _ in range(4)]
        await trio.sleep(4)
        assert not any(isinstance(message, Generate) for message in dying.got)
        assert all(sink.text == "0 1 2 " for sink in sinks)


async def test_what_a_killed_worker_had_goes_on_though_its_process_does_not_end(
    autojump_clock: MockClock,
) -> None:
    dying = FakeChild(beats_until_s=1, exit_after_s=40, signal=9, survives=True, answers=False)
    async with pool_of(dying, slots=2) as (pool, _, slots):
        sinks = [submit(pool)[0] for _ in range(4)]
        await trio.sleep(15)
        assert dying.killed
        await trio.sleep(LOST_AFTER_S + 4)
        assert all(sink.text == "0 1 2 " for sink in sinks)
        slot, lost = next(
            (slot, slot.worker)
            for slot in slots
            if slot.worker is not None and slot.worker.child is dying
        )
        assert lost.state is WorkerState.DRAINING, "it is not served, and not gone"
        await trio.sleep(30)
        assert slot.last_failure.startswith("hung: no beat")
        assert slot.worker not in {None, lost}


async def test_the_time_that_a_killed_worker_takes_to_end_is_no_service(
    autojump_clock: MockClock,
) -> None:
    dying = FakeChild(beats_until_s=1, exit_after_s=40, signal=9, survives=True)
    heard = Heard()
    ending = await run_worker(FakeLaunch(dying), plan(), LIMITS, heard, lambda _worker: None)
    assert trio.current_time() == pytest.approx(40, abs=1)
    [told] = heard.endings
    assert told.ready_for_s is not None
    assert told.ready_for_s < 15
    assert ending.ready_for_s == told.ready_for_s


@pytest.mark.parametrize("order", ["restart", "stop"])
async def test_an_operators_order_for_a_dying_worker_hides_no_failure(
    order: str, autojump_clock: MockClock
) -> None:
    dying = FakeChild(beats_until_s=1, exit_after_s=30, signal=9, survives=True)
    async with pool_of(dying) as (_pool, launch, [slot]):
        await trio.sleep(15)
        assert len(dying.killed) == 1
        getattr(slot, order)()
        await trio.sleep(20)
        assert len(dying.killed) == 1
        assert slot.last_failure.startswith("hung: no beat")
        assert len(launch.launched) == (2 if order == "restart" else 1)
        assert slot.state is (SlotState.FILLED if order == "restart" else SlotState.STOPPED)


async def test_who_said_bye_and_stays_is_ended(autojump_clock: MockClock) -> None:
    async with pool_of(FakeChild(), slots=1) as (_pool, launch, slots):
        stays = launch.launched[0]
        await trio.sleep(20)
        stays.say(Bye("cannot go on", 81))
        await trio.sleep(1)
        worker = slots[0].worker
        assert worker is not None
        assert worker.state is WorkerState.DRAINING
        await trio.sleep(LIMITS.kill_after_s)
        assert stays.killed == [f"wedged: did not end when asked for {LIMITS.kill_after_s:g} s"]


async def test_a_sink_that_cannot_even_fail_ends_nobody_else(autojump_clock: MockClock) -> None:
    class Broken(Collected):
        def fail(self, error: RequestError) -> None:
            raise RuntimeError("a bug in a sink")

    dies = FakeChild(answer=10, exit_after_s=5, signal=9)
    async with pool_of(dies, failovers_max=0) as (pool, _, _slots):
        pool.submit([ASK], [Broken()], remaining_s=300, correlation_id="cid")
        good, _ = submit(pool)
        await trio.sleep(10)
        assert good.error is not None
        assert good.error.code is ErrorCode.WORKER_FAILED
        assert pool.open_requests == 0


@pytest.mark.parametrize("order", range(6))
async def test_beats_that_waited_while_the_supervisor_was_suspended_count_once(
    order: int, mock_clock: MockClock
) -> None:
    # trio runs what wakes together in an order of its own: a few rounds see both.
    child, held = FakeChild(beats_until_s=0), list[Worker]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_worker, FakeLaunch(child), plan(), LIMITS, Heard(), held.append)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(0.5)
        await trio.testing.wait_all_tasks_blocked()
        child.say(Beat(Phase.IDLE, 0, 0, {}, 0.0, 0, 0))
        mock_clock.jump(3600)
        await trio.testing.wait_all_tasks_blocked()
        assert held[0].beat_s <= trio.current_time()
        for _ in range(24):
            mock_clock.jump(0.5)
            await trio.testing.wait_all_tasks_blocked()
        assert child.killed == ["hung: no beat for 10.25 s"]


async def test_a_supervisor_that_was_suspended_waits_again_for_the_hello(
    mock_clock: MockClock,
) -> None:
    child, held = FakeChild(hello_after_s=3590), list[Worker]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_worker, FakeLaunch(child), plan(), LIMITS, Heard(), held.append)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(3600)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(5)
        await trio.testing.wait_all_tasks_blocked()
        assert child.killed == []
        assert held[0].ready is not None
        nursery.cancel_scope.cancel()


class Unconnected(FakeChild):
    """A worker whose link is not connected yet."""

    def send(self, frames: list[bytes]) -> None:
        raise LinkFullError("the worker takes no messages: its queue is full")


async def test_an_operators_stop_of_a_worker_that_is_starting_is_no_failure(
    autojump_clock: MockClock,
) -> None:
    launch, slot = FakeLaunch(Unconnected(hello_after_s=math.inf)), Slot(plan())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_filled, slot, surroundings(launch, Heard(), RestartConfig()))
        await trio.sleep(1)
        slot.stop()
        await trio.sleep(1)
        assert slot.state is SlotState.STOPPED
        assert (slot.failures(trio.current_time()), slot.last_failure) == (0, "")
        nursery.cancel_scope.cancel()


async def test_an_operators_restart_of_a_worker_that_is_starting_is_not_forgotten(
    autojump_clock: MockClock,
) -> None:
    failed = [FakeChild(exit_after_s=0, exit_code=1) for _ in range(3)]
    launch = FakeLaunch(*failed, Unconnected(hello_after_s=math.inf))
    slot = Slot(plan())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_filled, slot, surroundings(launch, Heard(), RestartConfig()))
        await trio.sleep(10)
        slot.restart()
        await trio.sleep(1)
        assert slot.worker is not None
        assert slot.failures(trio.current_time()) == 0
        nursery.cancel_scope.cancel()


async def test_an_operators_stop_counts_while_a_worker_is_being_started(
    autojump_clock: MockClock,
) -> None:
    class SlowToStart(FakeLaunch):
        async def __call__(self, worker_id: str, *, task_status: trio.TaskStatus[Child]) -> None:
            await trio.sleep(2)
            await super().__call__(worker_id, task_status=task_status)

    launch, slot = SlowToStart(), Slot(plan())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_filled, slot, surroundings(launch, Heard(), RestartConfig()))
        await trio.sleep(1)
        slot.stop()
        await trio.sleep(60)
        assert slot.state is SlotState.STOPPED
        nursery.cancel_scope.cancel()


async def test_a_crash_is_named_although_a_message_could_not_be_sent(
    autojump_clock: MockClock,
) -> None:
    class Crashed(FakeChild):
        def send(self, frames: list[bytes]) -> None:
            if self._dialogue.open_requests:
                self.end(signal=11)
                raise LinkFullError("the worker takes no messages: its queue is full")
            super().send(frames)

    async with pool_of(Crashed(answers=False)) as (pool, _, slots):
        _, request_id = submit(pool)
        await trio.sleep(1)
        pool.cancel(request_id, "client went away")
        await trio.sleep(0.5)
        assert slots[0].last_failure == "ended by signal 11"


async def test_a_worker_that_beats_but_does_not_advance_is_killed_and_replaced(
    autojump_clock: MockClock,
) -> None:
    async with pool_of(FakeChild(answers=False)) as (pool, launch, _slots):
        sink, _ = submit(pool)
        await trio.sleep(100)
        assert launch.launched[0].killed == ["wedged: no engine step for 60 s"]
        assert sink.text == "0 1 2 "


@pytest.mark.parametrize("phase", [Phase.PREFILL, Phase.DRAINING])
async def test_a_long_prefill_is_no_stall(phase: Phase, autojump_clock: MockClock) -> None:
    child = FakeChild(answers=False, beats_until_s=0)
    async with pool_of(child) as (pool, _, _slots):
        submit(pool)
        for step in range(60):
            child.say(Beat(phase, step, 0, {1: 0}, 1.0, 0, 0, prompt_tokens=100_000))
            await trio.sleep(5)
        assert child.killed == []


async def test_steps_that_should_bring_tokens_and_do_not_are_a_stall(
    autojump_clock: MockClock,
) -> None:
    child = FakeChild(answers=False, beats_until_s=0)
    async with pool_of(child) as (pool, _, _slots):
        submit(pool)
        for step in range(13):
            child.say(Beat(Phase.DECODE, step, 0, {1: 0}, 1.0, 0, 0))
            await trio.sleep(5)
        assert child.killed == ["livelock: steps, but no token for 60 s"]


async def test_tokens_that_come_slowly_are_no_stall(autojump_clock: MockClock) -> None:
    child = FakeChild(answers=False)
    async with pool_of(child) as (pool, _, _slots):
        sink, request_id = submit(pool)
        for index in range(5):
            await trio.sleep(50)
            child.say(Step(index, (Delta(request_id, index, (1,), "x"),)))
        await trio.sleep(1)
        assert (child.killed, sink.text) == ([], "xxxxx")


async def test_an_idle_worker_is_never_wedged(autojump_clock: MockClock) -> None:
    async with pool_of(FakeChild()) as (pool, launch, _slots):
        submit(pool)
        await trio.sleep(1000)
        sink, _ = submit(pool)
        await trio.sleep(10)
        assert (launch.launched[0].killed, sink.text) == ([], "0 1 2 ")


async def test_a_worker_that_will_not_end_when_asked_is_ended(autojump_clock: MockClock) -> None:
    class Deaf(FakeChild):
        async def _obey(self, frames: list[bytes], nursery: trio.Nursery) -> None:
            if frames != encode(Drain()):
                await super()._obey(frames, nursery)

    deaf = Deaf()
    async with pool_of(deaf) as (pool, launch, slots):
        sink, _ = submit(pool)
        await trio.sleep(1)
        slots[0].restart()
        await trio.sleep(30)
        assert sink.text == "0 1 2 ", "what was running may finish"
        assert deaf.killed == ["wedged: did not end when asked for 10 s"]
        assert len(launch.launched) == 2
        assert slots[0].failures(trio.current_time()) == 0
