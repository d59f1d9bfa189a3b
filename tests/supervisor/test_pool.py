"""The pool over workers on a clock that costs no time: no request is lost or answered twice."""

import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import MockClock

from rbee.ask import Ask
from rbee.config import RestartConfig, WorkerConfig
from rbee.errors import ErrorCode, RequestError
from rbee.rate_limits import Priority
from rbee.supervisor.pool import FLUSHES_PER_LOOK, FLUSHES_S_MAX, Pool
from rbee.supervisor.slot import Slot, Surroundings, keep_filled
from rbee.wire import Cancel, Delta, Generate, Step
from tests.supervisor.fakes import FakeChild, FakeLaunch, NoLog, plan

ASK = Ask(model="m", prompt="hi")


class Middle:
    def random(self) -> float:
        return 0.5


@dataclass
class Collected:
    """A sink that keeps what it is given."""

    deltas: list[Delta] = field(default_factory=list)
    error: RequestError | None = None
    flushed: int = 0  # of the deltas

    def push(self, delta: Delta) -> None:
        assert not self.is_over, "a delta after the last word"
        self.deltas.append(delta)

    def flush(self, now_s: float) -> None:
        assert self.flushed < len(self.deltas), "a flush without a delta"
        self.flushed = len(self.deltas)

    def fail(self, error: RequestError) -> None:
        assert not self.is_over, "two last words"
        self.error = error

    @property
    def is_over(self) -> bool:
        return self.error is not None or bool(self.deltas and self.deltas[-1].finish)

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas)


@asynccontextmanager
async def pool_of(
    *children: FakeChild,
    slots: int = 1,
    requests_max: int = 100,
    tokens_max: int = 10_000,
    failovers_max: int = 3,
) -> AsyncIterator[tuple[Pool, FakeLaunch, list[Slot]]]:
    launch = FakeLaunch(*children)
    places = [Slot(plan(f"m-{number}")) for number in range(slots)]
    pool = Pool(
        places,
        backlog=(requests_max, tokens_max),
        limits=WorkerConfig(failovers_max=failovers_max),
        clock=trio.current_time,
        log=NoLog(),
    )
    around = Surroundings(launch, WorkerConfig(), RestartConfig(), pool, Middle(), NoLog())  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        for slot in places:
            nursery.start_soon(keep_filled, slot, around)
        await trio.sleep(0.1)
        yield pool, launch, places
        nursery.cancel_scope.cancel()


def submit(
    pool: Pool, ask: Ask = ASK, priority: Priority = Priority.NORMAL
) -> tuple[Collected, int]:
    sink = Collected()
    [request_id] = pool.submit(
        [ask], [sink], remaining_s=300, correlation_id="cid", priority=priority
    )
    return sink, request_id


async def test_an_ask_is_answered_in_order_and_ends_once(autojump_clock: MockClock) -> None:
    async with pool_of() as (pool, _, _slots):
        sink, _ = submit(pool)
        await trio.sleep(10)
        assert sink.text == "0 1 2 "
        assert sink.is_over
        assert pool.open_requests == 0


async def test_an_ask_before_the_worker_is_ready_waits_for_it(autojump_clock: MockClock) -> None:
    async with pool_of(FakeChild(load_s=25)) as (pool, _, _slots):
        sink, _ = submit(pool)
        assert pool.queued == 1
        await trio.sleep(29)
        assert sink.text == "0 1 2 "


async def test_asks_go_to_the_worker_with_the_fewest(autojump_clock: MockClock) -> None:
    async with pool_of(slots=2) as (pool, launch, _slots):
        for _ in range(6):
            submit(pool)
        await trio.sleep(0.1)
        shares = [sum(isinstance(m, Generate) for m in child.got) for child in launch.launched]
        assert shares == [3, 3]


async def test_what_a_full_worker_cannot_take_waits_its_turn(autojump_clock: MockClock) -> None:
    async with pool_of(FakeChild(batch_size=2)) as (pool, _, _slots):
        sinks = [submit(pool)[0] for _ in range(5)]
        assert pool.queued == 3
        await trio.sleep(3.5)
        assert [sink.is_over for sink in sinks] == [True, True, False, False, False]
        await trio.sleep(10)
        assert all(sink.text == "0 1 2 " for sink in sinks)


async def test_a_request_that_no_worker_survives_is_given_up(autojump_clock: MockClock) -> None:
    children = [FakeChild(answers=False, exit_after_s=5, signal=9) for _ in range(4)]
    async with pool_of(*children, failovers_max=2) as (pool, launch, _slots):
        sink, _ = submit(pool)
        await trio.sleep(100)
        assert sink.error is not None
        assert sink.error.code is ErrorCode.WORKER_FAILED
        tried = [any(isinstance(m, Generate) for m in child.got) for child in launch.launched]
        assert tried[:4] == [True, True, True, False]


async def test_what_waits_for_a_slot_that_fails_for_good_is_told_so(
    autojump_clock: MockClock,
) -> None:
    children = [FakeChild(exit_after_s=1, exit_code=1, load_s=100) for _ in range(4)]
    async with pool_of(*children) as (pool, _, _slots):
        sink, _ = submit(pool)
        await trio.sleep(100)
        assert sink.error is not None
        assert sink.error.code is ErrorCode.MODEL_UNAVAILABLE
        with pytest.raises(RequestError, match="until an operator acts"):
            submit(pool)


async def test_a_cancelled_request_is_silent_and_makes_room(autojump_clock: MockClock) -> None:
    async with pool_of(FakeChild(batch_size=1, answer=100)) as (pool, launch, _slots):
        first, first_id = submit(pool)
        second, _ = submit(pool)
        await trio.sleep(2.5)
        pool.cancel(first_id, "client went away")
        pool.cancel(first_id, "again")
        await trio.sleep(2)
        assert Cancel(first_id) in launch.launched[0].got
        assert first.text == "0 1 "
        assert not first.is_over
        assert second.text != ""


async def test_a_request_cancelled_in_the_queue_never_reaches_a_worker(
    autojump_clock: MockClock,
) -> None:
    async with pool_of(FakeChild(batch_size=1)) as (pool, launch, _slots):
        submit(pool)
        _, waiting_id = submit(pool)
        pool.cancel(waiting_id, "client went away")
        await trio.sleep(20)
        ids = [m.request_id for m in launch.launched[0].got if isinstance(m, Generate)]
        assert ids == [1]


async def test_many_sinks_are_flushed_in_slices_and_none_is_left(
    autojump_clock: MockClock,
) -> None:
    class Slow(Collected):
        def flush(self, now_s: float) -> None:
            super().flush(now_s)
            autojump_clock.jump(100 * FLUSHES_S_MAX / FLUSHES_PER_LOOK)

    count = 2 * FLUSHES_PER_LOOK + 7
    async with pool_of(FakeChild(batch_size=1000), requests_max=1000) as (pool, _, _slots):
        sinks = [Slow() for _ in range(count)]
        for sink in sinks:
            pool.submit([ASK], [sink], remaining_s=300, correlation_id="cid")
        seen = [0]  # by another task, between slices
        while seen[-1] < count:
            wait = trio.lowlevel.checkpoint if seen[-1] else functools.partial(trio.sleep, 0.1)
            await wait()
            seen.append(sum(sink.flushed for sink in sinks))
        assert [len(sink.deltas) for sink in sinks] == [1] * count
        assert [sink.flushed for sink in sinks] == [1] * count
        assert not {FLUSHES_PER_LOOK, 2 * FLUSHES_PER_LOOK}.isdisjoint(seen)


async def test_a_sink_that_breaks_ends_its_own_request_alone(autojump_clock: MockClock) -> None:
    class Broken(Collected):
        def push(self, delta: Delta) -> None:
            raise RuntimeError("a bug in a sink")

    async with pool_of() as (pool, _, _slots):
        broken = Broken()
        pool.submit([ASK], [broken], remaining_s=300, correlation_id="cid")
        good, _ = submit(pool)
        await trio.sleep(10)
        assert good.text == "0 1 2 "
        assert broken.error is not None
        assert broken.error.code is ErrorCode.INTERNAL_ERROR
        assert pool.open_requests == 0


async def test_a_sink_that_cannot_flush_ends_its_own_request_alone(
    autojump_clock: MockClock,
) -> None:
    class Broken(Collected):
        def flush(self, now_s: float) -> None:
            raise RuntimeError("a bug in a sink")

    async with pool_of() as (pool, _, _slots):
        broken = Broken()
        pool.submit([ASK], [broken], remaining_s=300, correlation_id="cid")
        good, _ = submit(pool)
        await trio.sleep(10)
        assert (good.text, good.flushed) == ("0 1 2 ", 3)
        assert broken.error is not None
        assert broken.error.code is ErrorCode.INTERNAL_ERROR
        assert pool.open_requests == 0


async def test_a_draining_pool_refuses_the_new_and_finishes_the_old(
    autojump_clock: MockClock,
) -> None:
    async with pool_of() as (pool, _, _slots):
        sink, _ = submit(pool)
        pool.drain()
        with pytest.raises(RequestError) as refused:
            submit(pool)
        assert refused.value.code is ErrorCode.DRAINING
        await trio.sleep(10)
        assert sink.text == "0 1 2 "


async def test_an_unknown_model_is_refused(autojump_clock: MockClock) -> None:
    async with pool_of() as (pool, _, _slots):
        with pytest.raises(RequestError) as refused:
            submit(pool, Ask(model="other", prompt="hi"))
        assert refused.value.code is ErrorCode.MODEL_NOT_FOUND


async def test_workers_killed_without_end_lose_no_request(autojump_clock: MockClock) -> None:
    children = [FakeChild(exit_after_s=7, signal=9, batch_size=4) for _ in range(40)]
    restart_free = [FakeChild(batch_size=4)]
    async with pool_of(*children, *restart_free, slots=2, failovers_max=10) as (pool, _, slots):
        sinks: list[Collected] = []
        for _ in range(40):
            sinks.append(submit(pool)[0])
            await trio.sleep(0.7)
            for slot in slots:
                slot._breaker.reset()  # this test is about requests, not about giving up
        await trio.sleep(300)
        assert all(sink.is_over for sink in sinks)
        assert pool.open_requests == 0
        assert [sink.text for sink in sinks if sink.error is None] == ["0 1 2 "] * 40


async def test_an_answer_that_was_complete_when_its_worker_died_is_complete(
    autojump_clock: MockClock,
) -> None:
    async with pool_of(FakeChild(answers=False)) as (pool, launch, _slots):
        sink, request_id = submit(pool)
        await trio.sleep(1)
        child = launch.launched[0]
        child.say(Step(1, (Delta(request_id, 0, (7,), "whole", "stop", 1),)))
        child.end(signal=9)  # in the same moment: the end is seen before the words
        await trio.sleep(5)
        assert (sink.text, sink.error) == ("whole", None)
