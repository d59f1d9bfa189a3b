"""The pool over workers on a clock that costs no time: no request is lost or answered twice."""

import functools
import math
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
from rbee.supervisor.backlog import SAMPLES_MIN
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


async def test_a_full_queue_refuses_and_says_when_to_come_back(autojump_clock: MockClock) -> None:
    async with pool_of(FakeChild(batch_size=1), requests_max=2) as (pool, _, _slots):
        for _ in range(3):
            submit(pool)
        with pytest.raises(RequestError) as refused:
            submit(pool)
        assert refused.value.code is ErrorCode.QUEUE_FULL
        assert refused.value.retry_after_s == 1


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


async def test_a_request_whose_deadline_passed_in_the_queue_fails_by_that_name(
    autojump_clock: MockClock,
) -> None:
    async with pool_of(FakeChild(load_s=20)) as (pool, _, _slots):
        sink = Collected()
        pool.submit([ASK], [sink], remaining_s=5, correlation_id="cid")
        await trio.sleep(25)
        assert sink.error is not None
        assert sink.error.code is ErrorCode.DEADLINE_EXCEEDED


async def test_what_waits_is_bounded_in_tokens_too(autojump_clock: MockClock) -> None:
    async with pool_of(FakeChild(batch_size=1), tokens_max=100) as (pool, _, _slots):
        large = Ask(model="m", prompt="hi", tokens_max=60)
        submit(pool, large)
        submit(pool, large)
        with pytest.raises(RequestError) as refused:
            submit(pool, large)
        assert refused.value.code is ErrorCode.QUEUE_FULL
        submit(pool, Ask(model="m", prompt="hi", tokens_max=40))
        assert pool.queued == 2


async def test_choices_come_in_together_or_not_at_all(autojump_clock: MockClock) -> None:
    async with pool_of(FakeChild(batch_size=2), requests_max=4) as (pool, launch, _slots):

        def order(choices: int) -> list[Collected]:
            sinks = [Collected() for _ in range(choices)]
            pool.submit([ASK] * choices, sinks, remaining_s=300, correlation_id="cid")
            return sinks

        first = order(4)
        assert (pool.open_requests, pool.queued) == (4, 2)
        with pytest.raises(RequestError) as refused:
            order(3)
        assert refused.value.code is ErrorCode.QUEUE_FULL
        assert (pool.open_requests, pool.queued) == (4, 2)
        second = order(2)
        await trio.sleep(20)
        assert all(sink.text == "0 1 2 " for sink in first + second)
        ids = [m.request_id for m in launch.launched[0].got if isinstance(m, Generate)]
        assert len(ids) == 6


async def test_choices_that_no_queue_could_hold_come_in_where_nobody_waits(
    autojump_clock: MockClock,
) -> None:
    async with pool_of(FakeChild(batch_size=2), requests_max=3, tokens_max=9) as (pool, _, _slots):
        large = Ask(model="m", prompt="hi", tokens_max=7)
        sinks = [Collected() for _ in range(8)]
        pool.submit([large] * 8, sinks, remaining_s=300, correlation_id="cid")
        assert pool.queued == 6
        with pytest.raises(RequestError):
            submit(pool)
        await trio.sleep(30)
        assert all(sink.text == "0 1 2 " for sink in sinks)


async def test_choices_that_would_come_too_late_are_refused_unless_they_wait_for_each_other_alone(
    autojump_clock: MockClock,
) -> None:
    async with pool_of(FakeChild(batch_size=1)) as (pool, _, _slots):
        for _ in range(SAMPLES_MIN):
            submit(pool)
            await trio.sleep(4)

        def order() -> None:
            sinks = [Collected() for _ in range(8)]
            pool.submit(
                [ASK] * 8, sinks, remaining_s=12, first_token_timeout_s=2, correlation_id="cid"
            )

        submit(pool)
        submit(pool)
        with pytest.raises(RequestError, match="deadline"):
            order()
        await trio.sleep(7)
        order()


async def test_retry_after_is_the_wait_of_those_that_were_just_admitted(
    autojump_clock: MockClock,
) -> None:
    async with pool_of(FakeChild(batch_size=2), requests_max=10) as (pool, _, _slots):
        for _ in range(4):  # what a request takes is measured
            submit(pool)
            submit(pool)
            await trio.sleep(4)
        sinks = [submit(pool)[0] for _ in range(12)]
        with pytest.raises(RequestError) as refused:
            submit(pool)
        asked_s, told_s = trio.current_time(), refused.value.retry_after_s
        assert told_s is not None
        while not sinks[-1].deltas:
            await trio.sleep(0.1)
        assert trio.current_time() - asked_s == pytest.approx(told_s, rel=0.3)


@pytest.mark.parametrize(
    ("leaves_after_s", "lets_go_after_s", "held_s"), [(3, 0, 3), (0.1, 2, 2.1)]
)
async def test_who_leaves_early_teaches_how_long_a_place_is_held(
    leaves_after_s: float, lets_go_after_s: float, held_s: float, autojump_clock: MockClock
) -> None:
    child = FakeChild(batch_size=1, answer=1000, lets_go_after_s=lets_go_after_s)
    async with pool_of(child, requests_max=4) as (pool, _, _slots):
        for _ in range(SAMPLES_MIN):
            _, request_id = submit(pool)
            await trio.sleep(leaves_after_s)
            pool.cancel(request_id, "client went away")
            await trio.sleep(lets_go_after_s + 5)
        for _ in range(5):
            submit(pool)
        with pytest.raises(RequestError) as refused:
            submit(pool)
        assert refused.value.retry_after_s == math.ceil(5 * held_s)


async def test_what_a_worker_does_not_let_go_of_teaches_nothing(autojump_clock: MockClock) -> None:
    child = FakeChild(answers=False, lets_go_after_s=1e9, exit_after_s=20, signal=9)
    async with pool_of(child, FakeChild(batch_size=1), requests_max=1) as (pool, _, _slots):
        for _ in range(SAMPLES_MIN):
            pool.cancel(submit(pool)[1], "client went away")
        await trio.sleep(25)
        submit(pool)
        submit(pool)
        with pytest.raises(RequestError) as refused:
            submit(pool)
        assert refused.value.retry_after_s == 1


async def test_who_waits_is_served_and_told_to_wait_by_class(autojump_clock: MockClock) -> None:
    async with pool_of(FakeChild(batch_size=1), requests_max=5) as (pool, _, _slots):
        for _ in range(SAMPLES_MIN):
            submit(pool)
            await trio.sleep(4)
        submit(pool)
        low = submit(pool, priority=Priority.LOW)[0]
        normal = [submit(pool)[0] for _ in range(3)]
        high = submit(pool, priority=Priority.HIGH)[0]
        told_s = []
        for priority in Priority:
            with pytest.raises(RequestError) as refused:
                submit(pool, priority=priority)
            assert refused.value.code is ErrorCode.QUEUE_FULL
            told_s.append(refused.value.retry_after_s)
        turn_s = 3.0
        assert told_s == pytest.approx([2 * turn_s, 5 * turn_s, 6 * turn_s], abs=1)
        order = [high, *normal, low]
        for count in range(1, len(order) + 1):
            while not order[count - 1].is_over:
                await trio.sleep(0.1)
            assert [each.is_over for each in order].count(True) == count


async def test_a_request_that_cannot_be_reached_in_time_is_refused_at_once(
    autojump_clock: MockClock,
) -> None:
    async with pool_of(FakeChild(batch_size=1)) as (pool, _, _slots):
        for _ in range(SAMPLES_MIN):
            submit(pool)
            await trio.sleep(4)
        for _ in range(5):
            submit(pool)
        hopeless, patient = Collected(), Collected()
        with pytest.raises(RequestError) as refused:
            pool.submit([ASK], [hopeless], remaining_s=5, correlation_id="cid")
        assert refused.value.code is ErrorCode.QUEUE_FULL
        assert refused.value.retry_after_s == pytest.approx(15, abs=1)
        pool.submit([ASK], [patient], remaining_s=30, correlation_id="cid")
        await trio.sleep(30)
        assert patient.text == "0 1 2 "


async def test_who_cannot_have_its_first_token_in_time_is_refused_at_once(
    autojump_clock: MockClock,
) -> None:
    async with pool_of(FakeChild(batch_size=1)) as (pool, _, _slots):
        for _ in range(SAMPLES_MIN):
            submit(pool)
            await trio.sleep(4)
        for _ in range(5):
            submit(pool)
        for first_token_timeout_s, remaining_s, which in (
            (8.0, 300.0, "8 s for a first token"),
            (8.0, 5.0, "deadline"),
        ):
            with pytest.raises(RequestError, match=which) as refused:
                pool.submit(
                    [ASK], [Collected()], remaining_s=remaining_s,
                    first_token_timeout_s=first_token_timeout_s, correlation_id="cid",
                )  # fmt: skip
            assert refused.value.code is ErrorCode.QUEUE_FULL
            assert refused.value.retry_after_s == pytest.approx(15, abs=1)
        patient = Collected()
        pool.submit(
            [ASK], [patient], remaining_s=300, first_token_timeout_s=20, correlation_id="cid"
        )
        await trio.sleep(30)
        assert patient.text == "0 1 2 "


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
