"""Requests that crash their workers: the guilty one is found, and nobody else pays for it."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbee.errors import ErrorCode, RequestError
from rbee.supervisor.dispatch import COMING_S_MAX
from rbee.supervisor.quarantine import SUSPECT_S
from tests.supervisor.pool_stand import CRASH, KILL, TICK_S, Stand


@pytest.mark.parametrize("slots", [1, 2, 3])
@pytest.mark.parametrize("fuse", [1, 2, 12, 60])
def test_one_of_eight_is_guilty_and_the_others_finish(slots: int, fuse: int) -> None:
    stand = Stand(slots=slots)
    innocent = [stand.submit(f"hello {number}", 100)[0] for number in range(7 * slots)]
    for _ in range(5):
        stand.tick()
    guilty, _ = stand.submit(f"poison {fuse}", 200)
    stand.run()
    assert guilty.code is ErrorCode.REQUEST_QUARANTINED
    assert stand.crashes == 2
    for sink in innocent:
        assert (sink.error, sink.ids) == (None, list(range(100)))
        assert sink.prompt_tokens == [5]


def test_the_guilty_request_is_refused_when_it_comes_again_until_its_time_is_over() -> None:
    stand = Stand(quarantine_s=100)
    stand.submit("poison 1")
    stand.run()
    with pytest.raises(RequestError) as refused:
        stand.submit("poison 1")
    assert refused.value.code is ErrorCode.REQUEST_QUARANTINED
    assert stand.crashes == 2
    other, _ = stand.submit("hello")
    stand.now_s += 101
    again, _ = stand.submit("poison 1")
    stand.run()
    assert other.finish == "length"
    assert again.code is ErrorCode.REQUEST_QUARANTINED
    assert stand.crashes == 4


def test_both_crashes_are_pardoned_once_they_are_explained() -> None:
    stand = Stand(slots=2)
    stand.submit("hello", 100)
    stand.submit("poison 4", 100)
    while not stand.crashes:
        stand.tick()
    assert sum(stand.pool.pardons(slot.slot_id) for slot in stand.slots) == 0
    stand.run()
    assert sum(stand.pool.pardons(slot.slot_id) for slot in stand.slots) == 2


def test_crashes_that_nobody_is_guilty_of_cost_nobody_his_answer() -> None:
    stand = Stand()
    sinks = [stand.submit(f"hello {number}", 500)[0] for number in range(8)]
    for _ in range(3):
        while not (worker := stand.worker(stand.slots[0])) or len(worker.jobs) < 8:
            stand.tick()
        stand.tick()
        stand.end(stand.slots[0], CRASH)
    stand.run()
    assert all(sink.ids == list(range(500)) for sink in sinks)
    assert stand.pool.pardons("m-0") == 0


def test_suspects_work_alone_until_they_are_cleared() -> None:
    stand = Stand()
    sinks = [stand.submit(f"hello {number}", 500)[0] for number in range(4)]
    stand.tick()
    stand.end(stand.slots[0], CRASH)
    alone: set[int] = set()
    while not all(len(sink.ids) >= 17 for sink in sinks):
        stand.tick()
        worker = stand.worker(stand.slots[0])
        if worker is not None:
            assert len(worker.jobs) <= 1
            alone.update(worker.jobs)
    assert len(alone) == 4
    for _ in range(3):
        stand.tick()
    worker = stand.worker(stand.slots[0])
    assert worker is not None
    assert len(worker.jobs) == 4, "cleared, they go on together"


def test_new_requests_are_served_by_the_sibling_while_suspects_work_apart() -> None:
    stand = Stand(slots=2, restart_ticks=50)
    old = [stand.submit(f"hello {number}", 300)[0] for number in range(8)]
    stand.tick()
    stand.end(stand.slots[0], CRASH)
    new, _ = stand.submit("new", 20)
    for _ in range(25):
        stand.tick()
    assert new.finish == "length"
    stand.run()
    assert all(sink.ids == list(range(300)) for sink in old)


def test_suspects_do_not_starve_behind_a_sibling_that_is_always_busy() -> None:
    stand = Stand(slots=2, batch_size=2)
    suspects = [stand.submit(f"old {number}", 30)[0] for number in range(4)]
    stand.tick()
    stand.end(stand.slots[0], CRASH)
    stand.give_up(stand.slots[0])
    for number in range(400):
        stand.submit(f"new {number}", 5)
        stand.tick()
    assert all(sink.finish == "length" for sink in suspects)


def test_suspects_wait_for_no_worker_that_takes_long_to_load() -> None:
    stand = Stand(slots=2, batch_size=2, restart_ticks=1_000_000)
    suspects = [stand.submit(f"old {number}", 30 + number)[0] for number in range(4)]
    stand.tick()
    stand.end(stand.slots[0], CRASH)
    for number in range(int(COMING_S_MAX / TICK_S) + 200):
        stand.submit(f"new {number}", 4)
        stand.tick()
    assert all(sink.finish == "length" for sink in suspects)


def test_a_request_that_is_killed_from_outside_again_and_again_is_no_suspect() -> None:
    stand = Stand()
    sink, _ = stand.submit("hello", 100)
    while not sink.is_over:
        stand.tick()
        stand.tick()
        if stand.slots[0].worker is not None:
            stand.end(stand.slots[0], KILL)
    assert sink.ids == list(range(100))
    assert sink.moves > 20


def test_a_hang_counts_as_a_crash() -> None:
    stand = Stand()
    sink, _ = stand.submit("hello", 100)
    stand.tick()
    stand.end(stand.slots[0], KILL, fault="hung: no beat for 10 s")
    while stand.slots[0].worker is None:
        stand.tick()
    stand.end(stand.slots[0], KILL, fault="hung: no beat for 10 s")
    assert sink.code is ErrorCode.REQUEST_QUARANTINED


def test_a_guilty_client_that_leaves_at_each_crash_is_found_when_it_comes_back() -> None:
    stand = Stand()
    neighbour, _ = stand.submit("hello", 200)
    _, first_id = stand.submit("poison 3")
    while not stand.crashes:
        stand.tick()
    stand.pool.cancel(first_id, "client went away")
    for _ in range(2):
        guilty, _ = stand.submit("poison 3")
        while not guilty.is_over:
            stand.tick()
        if guilty.code is ErrorCode.REQUEST_QUARANTINED:
            break
    assert guilty.code is ErrorCode.REQUEST_QUARANTINED
    stand.run()
    assert neighbour.ids == list(range(200))
    assert stand.crashes == 2


def test_one_that_is_cancelled_as_it_crashes_its_worker_is_guilty_all_the_same() -> None:
    stand = Stand()
    stand.submit("poison 2")
    while not stand.crashes:
        stand.tick()
    while not (worker := stand.worker(stand.slots[0])) or not worker.jobs:
        stand.tick()
    stand.pool.cancel(1, "client went away")
    stand.end(stand.slots[0], CRASH)
    with pytest.raises(RequestError, match="crashed its worker"):
        stand.submit("poison 2")


def test_nobody_is_put_beside_a_cancelled_suspect_until_its_worker_has_let_it_go() -> None:
    stand = Stand()
    _, guilty_id = stand.submit("poison 2")
    while not stand.crashes:
        stand.tick()
    while not (worker := stand.worker(stand.slots[0])) or not worker.jobs:
        stand.tick()
    [wire_id] = worker.jobs
    stand.pool.cancel(guilty_id, "client went away")
    new, _ = stand.submit("new", 100)
    assert list(worker.jobs) == [wire_id], "it was cancelled, and may crash yet"
    stand.end(stand.slots[0], CRASH)
    assert stand.pool.pardons("m-0") == 2
    stand.run()
    assert new.ids == list(range(100))


def test_who_comes_to_be_suspected_where_it_works_gets_no_new_neighbours() -> None:
    stand = Stand(slots=2)
    equals = [stand.submit("hello", 100)[0] for _ in range(2)]
    stand.tick()
    stand.end(stand.slots[0], CRASH)
    worker = stand.worker(stand.slots[1])
    assert worker is not None
    new, _ = stand.submit("new", 100)
    assert len(worker.jobs) == 1
    while not new.ids:
        assert len(worker.jobs) == 1 or len(equals[1].ids) > 16
        stand.tick()
    stand.run()
    assert all(sink.ids == list(range(100)) for sink in (*equals, new))


def test_a_suspicion_that_ends_by_the_clock_alone_gives_its_worker_back() -> None:
    stand = Stand()
    stand.submit("hello", 10_000)
    stand.tick()
    stand.end(stand.slots[0], CRASH)
    while not stand.worker(stand.slots[0]):
        stand.tick()
    stand.submit("first", 10)
    worker = stand.worker(stand.slots[0])
    assert worker is not None
    assert [job.ask.prompt for job in worker.jobs.values()] == ["hello"]
    stand.now_s += SUSPECT_S
    stand.submit("second", 10)
    assert [job.ask.prompt for job in worker.jobs.values()] == ["hello", "first", "second"]


@pytest.mark.parametrize("is_crossed", [False, True])
def test_one_that_was_withdrawn_and_has_left_is_not_in_work_any_more(is_crossed: bool) -> None:
    stand = Stand(is_crossed=is_crossed)
    guilty, _ = stand.submit("poison 30", 100)
    for _ in range(5):
        stand.tick()
    innocent = [stand.submit(f"hello {number}", 100)[0] for number in range(3)]
    stand.run()
    assert guilty.code is ErrorCode.REQUEST_QUARANTINED
    assert stand.crashes == 2
    assert all(sink.ids == list(range(100)) for sink in innocent)


def test_what_was_cancelled_is_not_kept_once_its_worker_has_let_it_go() -> None:
    stand = Stand(is_crossed=True)
    stand.submit("hello", 10_000)
    for _ in range(1000):
        _, request_id = stand.submit("hello", 100)
        stand.tick()
        stand.pool.cancel(request_id, "its client is gone")
    [kept] = stand.pool._dispatch._there._leaving.values()
    assert len(kept) < 10


def test_without_failovers_a_crash_ends_what_was_in_work() -> None:
    stand = Stand(failovers_max=0)
    sink, _ = stand.submit("hello", 100)
    stand.tick()
    stand.end(stand.slots[0], KILL)
    assert sink.code is ErrorCode.WORKER_FAILED
    assert sink.moves == 0


def test_a_suspect_whose_client_leaves_gives_its_worker_back() -> None:
    stand = Stand()
    _, first_id = stand.submit("hello 1", 1000)
    _, second_id = stand.submit("hello 2", 1000)
    stand.tick()
    stand.end(stand.slots[0], CRASH)
    for _ in range(5):
        stand.tick()
    new, _ = stand.submit("new", 10)
    stand.pool.cancel(first_id, "client went away")
    stand.pool.cancel(second_id, "client went away")
    stand.run()
    assert new.finish == "length"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_whatever_happens_innocent_requests_are_answered_whole(seed: int) -> None:
    play(random.Random(seed))


def play(chance: random.Random) -> Stand:
    """One history: requests, poison, kills from outside and clients that leave."""
    stand = Stand(
        slots=chance.randint(1, 3),
        batch_size=chance.choice([1, 2, 8, 32]),
        restart_ticks=chance.randint(1, 20),
        failovers_max=1000,  # kills may come faster than tokens here
    )
    innocent, guilty, left = [], [], set()
    poisons = chance.randint(0, 2)
    for number in range(chance.randint(1, 60)):
        if poisons and chance.random() < 0.1:
            poisons -= 1
            fuse = chance.choice([1, 2, 10, 100])
            guilty.append(stand.submit(f"poison {fuse}", 1000 + number)[0])
        else:
            innocent.append(stand.submit(f"hello {chance.randint(0, 40)}", chance.randint(1, 200)))
        for _ in range(chance.choice([0, 0, 1, 5, 30])):
            stand.tick()
        if chance.random() < 0.1:
            _, request_id = chance.choice(innocent or [(None, 0)])
            left.add(request_id)
            stand.pool.cancel(request_id, "client went away")
        if chance.random() < 0.1:
            slot = chance.choice(stand.slots)
            if slot.worker is not None:
                stand.end(slot, KILL)
    stand.run()
    for sink, request_id in innocent:
        assert sink.error is None
        assert sink.finish == "length" or request_id in left
        assert len(sink.prompt_tokens) <= 1
    for sink in guilty:
        assert sink.code is ErrorCode.REQUEST_QUARANTINED
    assert stand.crashes <= 4 * len(guilty)
    assert stand.pool.queued == 0
    return stand
