"""What simulations have found, each as a test of its own."""

from typing import Any

import pytest

from rbee.ask import Ask
from rbee.config import WorkerConfig
from rbee.errors import LinkFullError, RequestError
from rbee.supervisor.failover import Course
from rbee.supervisor.pool import Pool
from rbee.supervisor.slot import Slot
from rbee.wire import Delta
from tests.supervisor.fakes import NoLog, plan
from tests.supervisor.pool_stand import StandSink, StandWorker


class DeafWorker(StandWorker):
    """Its process has just ended, and nobody knows yet."""

    def generate(self, *_: Any) -> None:
        raise LinkFullError("nobody is there")


def test_a_request_that_one_worker_does_not_take_goes_to_the_next() -> None:
    slots = [Slot(plan("m-0")), Slot(plan("m-1"))]
    pool = Pool(slots, backlog=(0, 1), limits=WorkerConfig(), clock=lambda: 0.0, log=NoLog())
    living = StandWorker("m-1")
    slots[0].worker, slots[1].worker = DeafWorker("m-0"), living  # type: ignore[assignment]

    pool.submit([Ask(model="m", prompt="hi")], [StandSink()], remaining_s=9.0, correlation_id="c")

    assert len(living.jobs) == 1
    assert pool.queued == 0


def test_an_order_whose_place_is_gone_waits_only_if_all_of_it_has_room() -> None:
    """It was let in for those of it that had to wait anyway."""
    slots = [Slot(plan("other-0", "other")), Slot(plan("m-0"))]
    pool = Pool(slots, backlog=(4, 1000), limits=WorkerConfig(), clock=lambda: 0.0, log=NoLog())
    slots[1].worker = DeafWorker("m-0", batch_size=1)  # type: ignore[assignment]

    def submit(model: str, choices: int) -> None:
        asks = [Ask(model=model, prompt="hi", tokens_max=1)] * choices
        sinks = [StandSink() for _ in asks]
        pool.submit(asks, sinks, remaining_s=9.0, correlation_id="c")

    submit("other", 2)
    with pytest.raises(RequestError, match="the queue is full"):
        submit("m", 3)
    assert pool.queued == 2
    submit("m", 2)
    assert pool.queued == 4


def test_tokens_of_a_worker_that_a_suspect_was_withdrawn_from_count_as_progress() -> None:
    course = Course()
    course.send()
    assert course.interrupt(failovers_max=1)  # the worker crashed
    course.send()
    course.take(Delta(1, 0, (7,), "a "))
    course.send()  # it was cleared, made room for the next suspect, and had its turn again

    assert course.interrupt(failovers_max=1)
    course.send()
    assert not course.interrupt(failovers_max=1)
