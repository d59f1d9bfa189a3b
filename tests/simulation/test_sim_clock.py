"""The clock of simulations keeps time as trio's own clock for tests does, and wakes who waits."""

import math

import pytest
import trio
from trio.testing import MockClock

from tests.simulation.sim_clock import Alarm, SimClock

both = pytest.mark.parametrize("clock", [MockClock(autojump_threshold=0), SimClock(0.0)])


@both
def test_who_sleeps_wakes_when_it_is_time(clock: trio.abc.Clock) -> None:
    woken: list[tuple[float, float]] = []

    async def sleep(until_s: float) -> None:
        await trio.sleep_until(until_s)
        woken.append((until_s, round(trio.current_time(), 6)))

    async def everybody() -> None:
        async with trio.open_nursery() as nursery:
            for until_s in (3.0, 0.5, -1.0, 3600.0):
                nursery.start_soon(sleep, until_s)

    trio.run(everybody, clock=clock)
    assert woken == [(-1.0, 0.0), (0.5, 0.5), (3.0, 3.0), (3600.0, 3600.0)]


def test_an_alarm_wakes_when_it_is_time_or_when_somebody_rings_before() -> None:
    clock = SimClock(0.0)
    alarm = Alarm(clock)
    woken_s: list[float] = []

    async def wait() -> None:
        alarm.ring()  # nobody waits yet: it is not kept
        for until_s in (9.0, 9.0, 1.0, math.inf):
            await alarm.wait_until(until_s)
            woken_s.append(trio.current_time())

    async def everybody() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.sleep(4.0)
            alarm.ring()
            alarm.ring()
            await trio.sleep(16.0)
            alarm.ring()

    trio.run(everybody, clock=clock)
    assert woken_s == [4.0, 9.0, 9.0, 20.0]


def test_who_waits_for_an_alarm_can_be_cancelled_and_waits_anew() -> None:
    clock = SimClock(0.0)
    alarm = Alarm(clock)

    async def wait() -> tuple[bool, float]:
        with trio.move_on_after(2.0) as scope:
            await alarm.wait_until(5.0)
        await alarm.wait_until(10.0)
        return scope.cancelled_caught, trio.current_time()

    assert trio.run(wait, clock=clock) == (True, 10.0)


def test_a_jump_wakes_all_whose_time_has_passed_and_nobody_else() -> None:
    clock = SimClock(0.0)
    woken: list[float] = []

    async def wait(until_s: float) -> None:
        await Alarm(clock).wait_until(until_s)
        woken.append(until_s)

    async def everybody() -> tuple[list[float], float]:
        async with trio.open_nursery() as nursery:
            for until_s in (1.0, 2.0, 60.0):
                nursery.start_soon(wait, until_s)
            await trio.sleep(0.5)
            clock.jump(30.0)
            await trio.sleep(0.5)
            return sorted(woken), trio.current_time()

    assert trio.run(everybody, clock=clock) == ([1.0, 2.0], 31.0)


def test_where_nothing_can_happen_any_more_somebody_hears_of_it() -> None:
    clock = SimClock(0.0)

    async def wait_for_ever() -> bool:
        with trio.CancelScope() as life:
            clock.on_idle = life.cancel
            await trio.sleep_forever()
        return life.cancelled_caught

    assert trio.run(wait_for_ever, clock=clock)
