"""Answers go on when their worker ends: no token is lost, none comes twice (R20)."""

from dataclasses import dataclass

import trio
from trio.testing import MockClock

from rbee.errors import ErrorCode, RequestError
from rbee.rate_limits import Priority
from rbee.wire import Delta, Failed, Generate, Step
from tests.supervisor.fakes import FakeChild
from tests.supervisor.test_pool import ASK, Collected, pool_of, submit

NUMBERS = "0 1 2 3 4 5 6 7 8 9 "


def sent(child: FakeChild) -> list[Generate]:
    return [message for message in child.got if isinstance(message, Generate)]


async def test_a_request_whose_worker_dies_before_its_first_token_is_sent_again(
    autojump_clock: MockClock,
) -> None:
    async with pool_of(FakeChild(answers=False, exit_after_s=5, signal=9)) as (pool, launch, _):
        sinks = [submit(pool)[0] for _ in range(3)]
        await trio.sleep(20)
        assert [sink.text for sink in sinks] == ["0 1 2 "] * 3
        assert [message.resume_ids for message in sent(launch.launched[1])] == [()] * 3


async def test_a_stream_whose_worker_dies_goes_on_at_its_sibling_at_once(
    autojump_clock: MockClock,
) -> None:
    sibling = FakeChild(answer=10, load_s=1)  # the other one gets the request
    dies = FakeChild(answer=10, exit_after_s=5, signal=9)
    async with pool_of(dies, sibling, slots=2) as (pool, launch, _):
        sink, _id = submit(pool)
        await trio.sleep(5)
        asked = [message.resume_ids for child in launch.launched for message in sent(child)]
        assert sorted(asked) == [(), (0, 1, 2, 3)]
        await trio.sleep(6.5)
        assert (sink.text, sink.error) == (NUMBERS, None)
        assert [delta.index for delta in sink.deltas] == list(range(10))


async def test_a_request_keeps_its_clients_salt_at_its_next_worker(
    autojump_clock: MockClock,
) -> None:
    async with pool_of(FakeChild(answer=10, exit_after_s=5, signal=9)) as (pool, launch, _):
        sink = Collected()
        pool.submit([ASK], [sink], remaining_s=300, correlation_id="cid", cache_salt=b"mine")
        await trio.sleep(20)
        salts = [message.cache_salt for child in launch.launched for message in sent(child)]
        assert salts == [b"mine"] * 2


async def test_a_stream_whose_only_worker_dies_goes_on_when_that_is_restarted(
    autojump_clock: MockClock,
) -> None:
    children = [FakeChild(answer=10, exit_after_s=5, signal=9), FakeChild(answer=10)]
    async with pool_of(*children) as (pool, _, _slots):
        sink, _id = submit(pool)
        await trio.sleep(5.5)
        assert (pool.queued, sink.is_over) == (1, False)
        await trio.sleep(10)
        assert sink.text == NUMBERS


async def test_a_low_answer_goes_on_before_high_ones_that_have_not_begun(
    autojump_clock: MockClock,
) -> None:
    dies = FakeChild(answer=10, batch_size=1, exit_after_s=5, signal=9)
    async with pool_of(dies, FakeChild(answer=10, batch_size=1)) as (pool, _, _slots):
        begun = submit(pool, priority=Priority.LOW)[0]
        high = submit(pool, priority=Priority.HIGH)[0]
        while not high.deltas:
            await trio.sleep(0.1)
        assert begun.text == NUMBERS


async def test_the_client_is_told_the_prompt_tokens_once(autojump_clock: MockClock) -> None:
    async with pool_of(FakeChild(answers=False), FakeChild(answers=False)) as (pool, launch, _):
        sink, request_id = submit(pool)
        await trio.sleep(1)
        launch.launched[0].say(Step(1, (Delta(request_id, 0, (7,), "a", None, 5),)))
        await trio.sleep(1)
        launch.launched[0].end(signal=9)
        await trio.sleep(5)
        [again] = sent(launch.launched[1])
        launch.launched[1].say(Step(1, (Delta(again.request_id, 1, (8,), "b", "stop", 5),)))
        await trio.sleep(1)
        assert [delta.prompt_tokens for delta in sink.deltas] == [5, 0]
        assert sink.text == "ab"


async def test_a_worker_that_repeats_what_was_delivered_before_it_is_faulty(
    autojump_clock: MockClock,
) -> None:
    async with pool_of(FakeChild(answers=False), FakeChild(answers=False)) as (pool, launch, _):
        sink, request_id = submit(pool)
        await trio.sleep(1)
        launch.launched[0].say(Step(1, (Delta(request_id, 0, (7,), "a", None, 5),)))
        await trio.sleep(1)
        launch.launched[0].end(signal=9)
        await trio.sleep(5)
        [again] = sent(launch.launched[1])
        liar = launch.launched[1]
        liar._dialogue._tokens[again.request_id] = 0  # it forgets that it resumes
        liar.say(Step(1, (Delta(again.request_id, 0, (7,), "a", None, 5),)))
        await trio.sleep(1)
        assert "out of turn" in liar.killed[0]
        assert sink.text == "a"


async def test_interruptions_without_a_token_between_them_end_at_the_limit(
    autojump_clock: MockClock,
) -> None:
    children = [FakeChild(answers=False, exit_after_s=5, signal=9) for _ in range(4)]
    async with pool_of(*children, failovers_max=2) as (pool, launch, _slots):
        sink, _ = submit(pool)
        await trio.sleep(100)
        assert sink.error is not None
        assert sink.error.code is ErrorCode.WORKER_FAILED
        assert [len(sent(child)) for child in launch.launched[:4]] == [1, 1, 1, 0]


async def test_an_answer_that_advances_may_be_interrupted_any_number_of_times(
    autojump_clock: MockClock,
) -> None:
    children = [FakeChild(answer=10, exit_after_s=2.5, signal=9) for _ in range(9)]
    async with pool_of(*children, failovers_max=1) as (pool, _, slots):
        sink, _id = submit(pool)
        for _ in range(200):
            await trio.sleep(0.5)
            slots[0]._breaker.reset()  # this test is about the request, not about giving up
        assert (sink.text, sink.error) == (NUMBERS, None)


async def test_a_stream_whose_last_slot_fails_for_good_is_told_so(
    autojump_clock: MockClock,
) -> None:
    dies = FakeChild(answer=10, exit_after_s=5, signal=9)
    broken = [FakeChild(exit_after_s=0.1, exit_code=1, load_s=100) for _ in range(3)]
    async with pool_of(dies, *broken) as (pool, _, _slots):
        sink, _id = submit(pool)
        await trio.sleep(30)
        assert sink.text == "0 1 2 3 "
        assert sink.error is not None
        assert sink.error.code is ErrorCode.MODEL_UNAVAILABLE


async def test_a_stream_whose_deadline_passes_before_the_restart_fails_by_that_name(
    autojump_clock: MockClock,
) -> None:
    children = [FakeChild(answer=10, exit_after_s=5, signal=9), FakeChild(load_s=20)]
    async with pool_of(*children) as (pool, _, _slots):
        sink = Collected()
        pool.submit([ASK], [sink], remaining_s=10, correlation_id="cid")
        await trio.sleep(40)
        assert sink.error is not None
        assert sink.error.code is ErrorCode.DEADLINE_EXCEEDED


@dataclass
class Moving(Collected):
    moves: int = 0

    def moved(self) -> None:
        assert not self.is_over
        self.moves += 1


async def test_a_sink_that_wants_to_know_is_told_each_failover(autojump_clock: MockClock) -> None:
    children = [FakeChild(answer=10, exit_after_s=4, signal=9) for _ in range(2)]
    async with pool_of(*children, FakeChild(answer=10)) as (pool, _, _slots):
        sink = Moving()
        pool.submit([ASK], [sink], remaining_s=300, correlation_id="cid")
        await trio.sleep(40)
        assert (sink.text, sink.moves) == (NUMBERS, 2)


async def test_a_sink_that_breaks_when_it_is_told_ends_its_own_request_alone(
    autojump_clock: MockClock,
) -> None:
    class Broken(Moving):
        def moved(self) -> None:
            raise RuntimeError("a bug in a sink")

    dies = FakeChild(answer=10, exit_after_s=4, signal=9)
    async with pool_of(dies, FakeChild(answer=10)) as (pool, _, _slots):
        broken = Broken()
        pool.submit([ASK], [broken], remaining_s=300, correlation_id="cid")
        good, _ = submit(pool)
        await trio.sleep(40)
        assert good.text == NUMBERS
        assert broken.error is not None
        assert broken.error.code is ErrorCode.INTERNAL_ERROR
        assert pool.open_requests == 0


async def test_room_that_a_cancelled_request_leaves_as_it_finishes_is_used(
    autojump_clock: MockClock,
) -> None:
    async with pool_of(FakeChild(batch_size=1, answers=False)) as (pool, launch, _slots):
        _, first_id = submit(pool)
        submit(pool)
        await trio.sleep(1)
        worker = launch.launched[0]
        worker.say(Step(1, (Delta(first_id, 0, (7,), "whole", "stop", 1),)))  # on its way
        pool.cancel(first_id, "client went away")
        await trio.sleep(1)
        assert [message.request_id for message in sent(worker)] == [1, 2]


async def test_a_request_that_the_engine_gives_up_ends_and_makes_room(
    autojump_clock: MockClock,
) -> None:
    async with pool_of(FakeChild(batch_size=1, answers=False)) as (pool, launch, _slots):
        sink, first_id = submit(pool)
        submit(pool)
        await trio.sleep(1)
        launch.launched[0].say(Failed(first_id, ErrorCode.ENGINE_FAILED, "it cannot"))
        await trio.sleep(1)
        assert sink.error is not None
        assert sink.error.code is ErrorCode.ENGINE_FAILED
        assert pool.open_requests == 1
        assert len(sent(launch.launched[0])) == 2


async def test_streams_that_wait_for_a_restart_when_the_server_ends_are_told_so(
    autojump_clock: MockClock,
) -> None:
    async with pool_of(FakeChild(answer=10, exit_after_s=5, signal=9)) as (pool, _, _slots):
        sink, _id = submit(pool)
        await trio.sleep(5.5)
        pool.fail_all(RequestError(ErrorCode.DRAINING, "the server is shutting down"))
        assert sink.error is not None
        assert (sink.text, sink.error.code) == ("0 1 2 3 ", ErrorCode.DRAINING)
        assert (pool.open_requests, pool.queued) == (0, 0)
