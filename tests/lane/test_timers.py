"""Deadlines of many connections, held against the plainest model of them."""

import math

import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from rbee.supervisor.lane.timers import TICK_S, Timers
from tests.api.served import LIVE, serve_face


class Item:
    def __init__(self) -> None:
        self.tick = -1


MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("arm"), st.integers(0, 5), st.floats(-1, 8, allow_nan=False)),
        st.tuples(st.just("disarm"), st.integers(0, 5), st.just(0.0)),
        st.tuples(st.just("pass"), st.just(0), st.floats(0, 3, allow_nan=False)),
    ),
    max_size=60,
)


@given(begin_s=st.floats(0, 1e6), moves=MOVES)
def test_what_has_passed_its_deadline_is_told_once_and_never_early(
    begin_s: float, moves: list[tuple[str, int, float]]
) -> None:
    timers: Timers[Item] = Timers()
    items = [Item() for _ in range(6)]
    due: dict[int, float] = {}  # the model
    now_s = begin_s + 10
    for move, index, amount_s in moves:
        match move:
            case "arm":
                due[index] = now_s + amount_s
                timers.arm(items[index], now_s + amount_s)
            case "disarm":
                due.pop(index, None)
                timers.disarm(items[index])
            case _:
                now_s += amount_s
                told = timers.expired(now_s)
                indices = [items.index(item) for item in told]
                assert len(set(indices)) == len(indices)
                for each in indices:
                    assert due.pop(each) <= now_s + 1e-6
                late = [each for each, due_s in due.items() if due_s < now_s - TICK_S - 1e-6]
                assert late == []
    if due:
        assert timers.next_s <= min(due.values()) + TICK_S + 1e-6
    assert len(timers.expired(math.inf)) == len(due)
    assert timers.next_s == math.inf


def test_arming_again_costs_nothing_that_stays() -> None:
    timers: Timers[Item] = Timers()
    item = Item()
    for number in range(10_000):
        timers.arm(item, 1000 + number / 1000)
    assert len(timers._buckets) == len(timers._ticks) <= 101
    timers.disarm(item)
    timers.disarm(item)
    assert timers.expired(1e9) == []
    assert timers._buckets == {}


async def test_a_lane_without_traffic_sleeps_until_the_next_deadline(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """By a clock that jumps: were the loop to wake for nothing, it would be seen here."""
    async with serve_face(keep_alive_s=75.0, patience_s=1000) as served:
        client = served.connect_unseen()
        client.send_unseen(LIVE)
        await client.read_answer()
        turns = 0
        assert served.lane is not None
        turn = served.lane._turn

        def count_turn() -> None:
            nonlocal turns
            turns += 1
            turn()

        served.lane._turn = count_turn  # type: ignore[method-assign]
        started_s = trio.current_time()
        while served.lane.open_connections:
            await trio.sleep(1)
        assert 75 <= trio.current_time() - started_s <= 76 + TICK_S
        assert turns <= 20
        await client.stream.aclose()
