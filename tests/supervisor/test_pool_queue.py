"""Who may wait for a worker of the pool, and what who may not is told."""

import math
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from rbee.ask import Ask
from rbee.errors import ErrorCode, RequestError
from rbee.rate_limits import Priority
from rbee.supervisor.backlog import SAMPLES_MIN
from rbee.supervisor.lifecycle import WorkerState
from rbee.supervisor.pool import Pool
from rbee.wire import Generate
from tests.supervisor.fakes import FakeChild
from tests.supervisor.pool_stand import CRASH, Stand, StandSink, StandWorker
from tests.supervisor.test_pool import ASK, Collected, pool_of, submit


async def test_a_full_queue_refuses_and_says_when_to_come_back(autojump_clock: MockClock) -> None:
    async with pool_of(FakeChild(batch_size=1), requests_max=2) as (pool, _, _slots):
        for _ in range(3):
            submit(pool)
        with pytest.raises(RequestError) as refused:
            submit(pool)
        assert refused.value.code is ErrorCode.QUEUE_FULL
        assert refused.value.retry_after_s == 1


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


def test_a_bug_in_the_sending_of_a_choice_leaves_none_of_its_order_open() -> None:
    class Broken(StandWorker):
        def generate(self, *args: Any) -> None:
            if self.jobs:
                raise RuntimeError("a bug in a codec")
            super().generate(*args)

    stand = Stand()
    worker = Broken("m-0")
    stand.slots[0].worker = worker  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match="codec"):
        stand.pool.submit(
            [ASK] * 3, [StandSink() for _ in range(3)], remaining_s=9, correlation_id="cid"
        )
    assert (stand.pool.open_requests, stand.pool.queued) == (0, 0)
    assert worker.cancelled == list(worker.jobs)


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


async def test_choices_that_would_come_too_late_are_refused_unless_one_begins_now(
    autojump_clock: MockClock,
) -> None:
    async with pool_of(FakeChild(batch_size=1)) as (pool, _, _slots):
        for _ in range(SAMPLES_MIN):
            submit(pool)
            await trio.sleep(4)

        def order(remaining_s: float) -> None:
            sinks = [Collected() for _ in range(8)]
            pool.submit([ASK] * 8, sinks, remaining_s=remaining_s, correlation_id="cid")

        submit(pool)
        submit(pool)
        with pytest.raises(RequestError, match="deadline"):
            order(12)
        await trio.sleep(7)
        order(2)


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


async def fill_queue(pool: Pool) -> None:
    """What answers take is learnt, and four wait behind one."""
    for _ in range(SAMPLES_MIN):
        submit(pool)
        await trio.sleep(4)
    for _ in range(5):
        submit(pool)


async def test_a_request_that_cannot_be_reached_in_time_is_refused_at_once(
    autojump_clock: MockClock,
) -> None:
    async with pool_of(FakeChild(batch_size=1)) as (pool, _, _slots):
        await fill_queue(pool)
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
        await fill_queue(pool)
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


def taught(stand: Stand) -> None:
    """Places are held for 5 s."""
    for number in range(SAMPLES_MIN):
        stand.submit(f"lesson {number}", 500)
    stand.run()


def test_a_suspect_that_an_idle_worker_takes_at_once_is_not_refused() -> None:
    stand = Stand(batch_size=2)
    taught(stand)
    _, request_id = stand.submit("hello", 500)
    stand.tick()
    stand.end(stand.slots[0], CRASH)
    stand.pool.cancel(request_id, "client went away")
    while not (worker := stand.worker(stand.slots[0])):
        stand.tick()
    sink, _ = stand.submit("hello", 500, remaining_s=1.5)
    assert len(worker.jobs) == 1
    stand.submit("new", 100, remaining_s=100)
    with pytest.raises(RequestError) as refused:
        stand.submit("hello", 500, remaining_s=1.5)
    assert refused.value.code is ErrorCode.QUEUE_FULL
    stand.run()
    assert sink.ids == list(range(500))


def test_a_worker_that_takes_nothing_more_shortens_no_wait() -> None:
    stand = Stand(slots=2, batch_size=1)
    taught(stand)
    for number in range(2):
        stand.submit(f"hello {number}", 500)
    leaving = stand.worker(stand.slots[1])
    assert leaving is not None
    stand.submit("new", 10, remaining_s=6)
    leaving.state = WorkerState.DRAINING
    with pytest.raises(RequestError) as refused:
        stand.submit("another", 10, remaining_s=6)
    assert refused.value.code is ErrorCode.QUEUE_FULL
