"""Requests that are equal: what is found of one of them holds for all."""

import pytest

from rbee.errors import ErrorCode, RequestError
from tests.supervisor.pool_stand import CRASH, KILL, Stand, StandWorker


def test_equals_of_a_suspect_fill_the_queue_as_all_others_do() -> None:
    stand = Stand(requests_max=8)
    stand.submit("poison 1")
    stand.tick()
    assert (stand.crashes, stand.pool.queued) == (1, 1)
    for prompt in ("poison 1", "hello", "poison 1", "hello", "poison 1", "hello", "poison 1"):
        stand.submit(prompt)
    for prompt in ("poison 1", "hello"):
        with pytest.raises(RequestError) as refused:
            stand.submit(prompt)
        assert refused.value.code is ErrorCode.QUEUE_FULL
    assert stand.pool.queued == 8


def test_equal_requests_that_crash_are_all_ended_and_none_is_tried_again() -> None:
    stand = Stand(slots=2)
    guilty = [stand.submit("poison 5")[0] for _ in range(6)]
    other, _ = stand.submit("hello", 100)
    stand.run()
    assert {sink.code for sink in guilty} == {ErrorCode.REQUEST_QUARANTINED}
    assert other.ids == list(range(100))
    assert stand.crashes <= 3  # both workers had some, and one of them works apart


def heard(stand: Stand) -> list[list[str | None]]:
    """The prompts at each worker that has any."""
    workers: list[StandWorker | None] = [stand.worker(slot) for slot in stand.slots]
    prompts = [[job.ask.prompt for job in each.jobs.values()] for each in workers if each]
    return [each for each in prompts if each]


def suspects(*prompts: str) -> tuple[Stand, list[int]]:
    """Three workers, of which one has crashed while all these were in work there; and who they are.

    It has a successor by now.
    """
    stand = Stand(slots=3)
    first, *others = stand.slots
    for slot in others:
        stand.end(slot, KILL)
    ids = [stand.submit(prompt, 1000)[1] for prompt in prompts]
    stand.tick()
    stand.end(first, CRASH)
    for _ in range(5):
        stand.tick()
    return stand, ids


def test_one_of_equal_suspects_works_apart_and_the_others_wait_for_what_is_found() -> None:
    stand, _ = suspects("twin", "twin", "other", "twin")
    assert sorted(heard(stand)) == [["other"], ["twin"]]
    assert stand.pool.queued == 2
    new, _ = stand.submit("new", 5)
    stand.tick()
    assert new.ids, "nobody is kept back by who has to wait for his equal"
    stand.run()
    assert stand.crashes == 0


def test_who_is_cleared_clears_its_equals_at_once() -> None:
    stand, ids = suspects("twin", "twin", "twin")
    while stand.pool.queued:
        stand.tick()
    assert {each.request_id for each in stand.pool._dispatch.at_workers("m")} == set(ids)
    assert stand.now_s < 5.0, "nobody has ended by now"


@pytest.mark.parametrize("signal", [CRASH, KILL])
def test_an_equal_waits_for_the_worker_of_a_suspect_that_was_cancelled(signal: int) -> None:
    """Until its last word: it may hang there, and nobody knows yet."""
    stand, _ = suspects("twin", "twin")
    [first] = stand.pool._dispatch.at_workers("m")
    at = next(slot for slot in stand.slots if slot.worker is first.worker)
    stand.pool.cancel(first.request_id, "client went away")
    stand.pool._dispatch.pump("m")
    assert heard(stand) == [["twin"]]
    stand.end(at, signal)
    if signal == CRASH:
        assert heard(stand) == []
        assert stand.pool.open_requests == 0, "the equal is guilty, too"
    else:
        assert heard(stand) == [["twin"]], "that was nobody's doing: now it is heard"
