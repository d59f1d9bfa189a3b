"""Requests that crash their workers, where hundreds are in work or wait."""

import math

import pytest

from rbee.errors import ErrorCode, RequestError
from rbee.supervisor.pool import GUILTY_IN_A_ROW_MAX
from rbee.supervisor.quarantine import HEARINGS_MAX, TOKENS_MORE
from tests.supervisor.pool_stand import CRASH, Stand

MANY = 2000


def test_of_hundreds_of_suspects_some_are_heard_together() -> None:
    stand = Stand(batch_size=512)
    sinks = [stand.submit(f"hello {number}", 500)[0] for number in range(400)]
    stand.tick()
    stand.end(stand.slots[0], CRASH)
    at_once: set[int] = set()
    ticks = 0
    while any(len(sink.ids) < 2 for sink in sinks):
        stand.tick()
        ticks += 1
        worker = stand.worker(stand.slots[0])
        at_once.add(0 if worker is None else len(worker.jobs))
    assert max(at_once) == math.ceil(400 / HEARINGS_MAX)
    assert ticks <= HEARINGS_MAX * (TOKENS_MORE + 2) + stand.restart_ticks
    stand.run()
    assert all(sink.ids == list(range(500)) for sink in sinks)


@pytest.mark.parametrize("place", [0, 3, 250, 399])
def test_one_of_hundreds_is_guilty_and_the_others_finish(place: int) -> None:
    stand = Stand(batch_size=512)
    sinks = [
        stand.submit("poison 9" if number == place else f"hello {number}", 100)[0]
        for number in range(400)
    ]
    stand.run()
    guilty = sinks.pop(place)
    assert guilty.code is ErrorCode.REQUEST_QUARANTINED
    assert stand.crashes == 3
    assert all(sink.ids == list(range(100)) for sink in sinks)


def test_equals_of_the_guilty_end_however_many_wait() -> None:
    stand = Stand(slots=3)
    other, _ = stand.submit("hello", 200)
    guilty = [stand.submit("poison 5")[0] for _ in range(MANY)]
    stand.run()
    assert {sink.code for sink in guilty} == {ErrorCode.REQUEST_QUARANTINED}
    assert other.ids == list(range(200))


def test_whose_time_is_over_while_a_suspect_works_apart_ends_however_many_wait() -> None:
    stand = Stand()
    suspect, _ = stand.submit("hello", 5000)
    stand.tick()
    stand.end(stand.slots[0], CRASH)
    while not (worker := stand.worker(stand.slots[0])) or not worker.jobs:
        stand.tick()
    late = [stand.submit(f"late {number}", 10, remaining_s=0.05)[0] for number in range(MANY)]
    stand.run()
    assert {sink.code for sink in late} == {ErrorCode.DEADLINE_EXCEEDED}
    assert suspect.ids == list(range(5000))


def test_a_slot_that_the_guilty_closed_hears_of_the_verdict() -> None:
    stand = Stand(slots=2)
    stand.submit("poison 3", 100)
    while not stand.crashes:
        stand.tick()
    [closed] = [slot for slot in stand.slots if slot.worker is None]
    stand.give_up(closed)
    stand.run()
    assert closed._is_pardoned
    assert stand.pool.pardons(closed.slot_id) == 1


def test_who_comes_while_a_trial_is_due_is_told_when() -> None:
    stand = Stand()
    stand.submit()
    stand.end(stand.slots[0], CRASH)
    stand.slots[0].refill_s = stand.now_s + 29.8
    stand.give_up(stand.slots[0])
    with pytest.raises(RequestError, match="one is tried in 30 s") as refused:
        stand.submit()
    assert refused.value.retry_after_s == pytest.approx(29.8)


def test_an_engine_that_crashes_at_everything_is_not_pardoned_for_ever() -> None:
    stand = Stand()

    def fail(number: int) -> None:
        stand.submit(f"poison {number % 3 + 1}", 100 + number)
        stand.run()

    for number in range(GUILTY_IN_A_ROW_MAX):
        fail(number)
    assert stand.pool.pardons("m-0") == stand.crashes == 2 * GUILTY_IN_A_ROW_MAX
    fail(100)
    assert stand.crashes == 2 + stand.pool.pardons("m-0")
    answered, _ = stand.submit()
    stand.run()
    assert answered.finish == "length"
    fail(200)
    assert stand.crashes == 2 + stand.pool.pardons("m-0")
