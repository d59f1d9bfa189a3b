"""The lane takes no request that the HTTP server would not take, and none in another way."""

import random

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from rbee.supervisor.lane import HandOver, Refused, Request
from tests.lane.corpus import CORPUS
from tests.lane.harness import Taken, drive, new_machine, read_as_http_server
from tests.lane.mutations import compose, mutate

MUTATIONS_PER_EXAMPLE = 20  # 2,000 in a usual run, 20,000 with the profile `explore`


def assert_no_laxer_than_the_http_server(received: bytes) -> str:
    """Returns: what came of it, for the statistics."""
    machine = new_machine()
    events = drive(machine, [received])
    reading = read_as_http_server(received)
    requests = [told for told in events if isinstance(told, Request)]
    taken = [
        Taken(told.head.method, told.head.target, told.head.path, told.head.headers, told.body)
        for told in requests
    ]
    assert taken == reading.taken[: len(taken)]
    match events[len(requests) :]:
        case [Refused(status, answer)]:
            assert status == reading.refused
            assert answer.startswith(b"HTTP/1.1 %d " % status)
            assert len(taken) == len(reading.taken)
            return f"{len(taken)} taken, then refused"
        case [HandOver(rest)]:
            assert rest
            assert received.endswith(rest)
            return f"{len(taken)} taken, then handed over"
        case rest:
            assert rest == []
            assert len(taken) == len(reading.taken)
            assert reading.refused is None
            assert machine.can_go_on is reading.can_go_on
            return f"{len(taken)} taken"


@pytest.mark.parametrize("received", CORPUS.values(), ids=CORPUS)
def test_a4_lane_is_no_laxer_than_the_http_server(received: bytes) -> None:
    assert_no_laxer_than_the_http_server(received)


@given(seed=st.integers(0, 2**32))
def test_a4_lane_is_no_laxer_whatever_is_changed(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(MUTATIONS_PER_EXAMPLE // 2):
        event(assert_no_laxer_than_the_http_server(mutate(chance)))
        event(assert_no_laxer_than_the_http_server(compose(chance)))
