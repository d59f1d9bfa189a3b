"""The clock of a simulation: when nobody can run, it is at once as late as the next thing is due.

It does what `trio.testing.MockClock` with ``autojump_threshold=0`` does, for a part of the cost:
a jump is one turn of trio's loop instead of two, and who waits for an `Alarm` needs neither a
cancel scope nor an exception.

Rule: nobody waits for the kernel. Trio asks its clock how long it may sleep only when no task can
run, so that is when time passes; `trio.testing.wait_all_tasks_blocked` does not work with it.
"""

import heapq
import itertools
import math
from collections.abc import Callable
from typing import Any, Final

import trio

# So often nothing is due before everybody is taken to wait for ever: trio itself, where it ends,
# waits once or twice for a socket of its own.
IDLE_TURNS_MAX: Final = 10


class SimClock(trio.abc.Clock):
    """What time it is, and who is to wake when."""

    def __init__(self, begin_s: float) -> None:
        self.on_idle: Callable[[], None] = lambda: None  # everybody waits, and nothing is due
        self._now_s = begin_s
        self._alarms: list[tuple[float, int, Alarm]] = []  # a heap; some were rung before
        self._numbers = itertools.count()
        self._idle_turns = 0

    # --- for trio

    def start_clock(self) -> None:
        return

    def current_time(self) -> float:
        return self._now_s

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Let the time pass until ``deadline``, or until an alarm before it."""
        alarms = self._alarms
        while alarms and alarms[0][2].due_s != alarms[0][0]:
            heapq.heappop(alarms)
        due_s = min(deadline, alarms[0][0]) if alarms else deadline
        if due_s == math.inf:
            self._idle_turns += 1
            if self._idle_turns == IDLE_TURNS_MAX:
                self.on_idle()
            return 0.0
        self._idle_turns = 0
        self.jump(max(0.0, due_s - self._now_s))
        return 0.0

    # --- for the world

    def jump(self, lasts_s: float) -> None:
        """So much time passes at once, in which nobody runs."""
        self._now_s += lasts_s
        alarms = self._alarms
        while alarms and alarms[0][0] <= self._now_s:
            due_s, _, alarm = heapq.heappop(alarms)
            if alarm.due_s == due_s:
                alarm.ring()

    def set(self, alarm: "Alarm") -> None:
        heapq.heappush(self._alarms, (alarm.due_s, next(self._numbers), alarm))


class Alarm:
    """Wakes its one task when it is time, or when somebody rings before."""

    def __init__(self, clock: SimClock) -> None:
        self.due_s = math.nan  # not a number, so equal to nothing: nobody waits
        self._clock = clock
        self._task: trio.lowlevel.Task | None = None

    async def wait_until(self, due_s: float) -> None:
        if due_s <= self._clock.current_time():
            await trio.lowlevel.checkpoint()
            return
        self.due_s, self._task = due_s, trio.lowlevel.current_task()
        if due_s < math.inf:
            self._clock.set(self)
        await trio.lowlevel.wait_task_rescheduled(self._give_up)

    def ring(self) -> None:
        """Who does not wait just now does not hear it."""
        task, self._task, self.due_s = self._task, None, math.nan
        if task is not None:
            trio.lowlevel.reschedule(task)

    def _give_up(self, _raise_cancel: Any) -> trio.lowlevel.Abort:
        self._task, self.due_s = None, math.nan
        return trio.lowlevel.Abort.SUCCEEDED
