"""The two threads of a simulated worker process: when they act, and how they end.

It mirrors `rbee.engine.link_thread` and the frame of `rbee.engine.loop`: when it beats, who waits
for whom, what is lost when it ends. Sans-IO, moved by `advance`: so it can live on while the
supervisor does not run.
"""

import math
import random
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from signal import SIGKILL, SIGTERM
from typing import Final

from rbee.dialogue import WorkerDialogue
from rbee.errors import ExitCode
from rbee.wire import Beat, Bye, FromWorker, Stop, encode
from tests.simulation.faults import Character
from tests.simulation.sim_link import Frames, SimLink

STOP_FRAMES: Final = encode(Stop())

# As in `rbee.engine.link_thread`.
STOP_GRACE_S: Final = 1.0
HEARD_S_MAX: Final = 2.0
OUTBOX_MESSAGES_MAX: Final = 16


class Threads(ABC):
    """The engine's thread, called the main one, and the link's.

    Args:
      lag_s: what is said may rest so long before it leaves, at most.
      poke: called when something has come for it.
    """

    def __init__(
        self,
        nature: Character,
        own: random.Random,
        now_s: float,
        lag_s: float,
        poke: Callable[[], None],
    ) -> None:
        self.nature: Final = nature
        self.exit_code: int | None = None
        self.signal: int | None = None
        self.has_ended = False
        self.is_connected = False
        self._own = own
        self._lag_s = lag_s
        self._poke = poke
        self._dialogue = WorkerDialogue()
        self._link: SimLink | None = None
        self._now_s = now_s
        self._inbox: deque[Frames] = deque()
        self._outbox: deque[tuple[float, Frames]] = deque()  # from when on it may leave
        self._beat_every_s = 0.0
        self._main_act: Callable[[], None] = _nothing
        self._is_hung = self._is_mute = False
        self._has_left = self._has_heard_stop = False
        self._leaves_with = 0
        # When what happens by itself is due.
        self._main_s = self._beat_s = self._stop_by_s = self._hold_s = math.inf
        self._ends_s = self._fault_s = math.inf
        self._frozen_until_s = -math.inf

    # --- what the worker does

    @abstractmethod
    def _turn(self) -> None:
        """The main thread has time: it takes what has come, and begins the next act."""

    @abstractmethod
    def _beat_message(self) -> Beat: ...

    @abstractmethod
    def _fault_now(self) -> None: ...

    @abstractmethod
    def _break(self, how: str) -> None:
        """From now on it may be killed."""

    # --- time

    @property
    def wake_s(self) -> float:
        """When something happens by itself."""
        return math.inf if self.has_ended else self._next()[0]

    def advance(self, now_s: float) -> None:
        """Live until ``now_s``."""
        while not self.has_ended:
            at_s, act = self._next()
            if at_s > now_s:
                break
            self._now_s = max(self._now_s, at_s)
            act()
            self._move_frames()
        self._now_s = max(self._now_s, now_s)
        self._move_frames()

    def freeze(self, lasts_s: float) -> None:
        """Nothing on the box runs for so long; the clock goes on."""
        self._now_s += lasts_s
        self._main_s += lasts_s
        self._stop_by_s += lasts_s
        self._fault_s += lasts_s
        self._outbox = deque((at_s + lasts_s, frames) for at_s, frames in self._outbox)

    @property
    def _is_frozen(self) -> bool:
        return self._now_s < self._frozen_until_s

    def _next(self) -> tuple[float, Callable[[], None]]:
        best: tuple[float, Callable[[], None]] = (self._main_s, self._main)
        if self._beat_s < best[0]:
            best = (self._beat_s, self._beat)
        if self._outbox and self._now_s < self._outbox[0][0] < best[0]:
            best = (self._outbox[0][0], _nothing)
        if self._stop_by_s < best[0]:
            best = (self._stop_by_s, lambda: self._end(ExitCode.OK, None))
        if self._hold_s < best[0]:
            best = (self._hold_s, lambda: self._end(self._leaves_with, None))
        if self._is_frozen and best[0] < self._frozen_until_s:
            best = (self._frozen_until_s, _nothing)
        if self._fault_s < best[0]:
            best = (self._fault_s, self._fault_now)
        if self._ends_s < best[0]:
            best = (self._ends_s, lambda: self._end(None, self.signal))
        return best

    # --- its end

    def deliver_signal(self, number: int) -> None:
        if number == SIGTERM and self.nature.ignores_term:
            return
        lag_s = self.nature.kill_lag_s
        if number == SIGKILL:
            lag_s += self.nature.unkillable_s
        if self._ends_s > self._now_s + lag_s:
            self._ends_s, self.signal = self._now_s + lag_s, number

    def _end(self, exit_code: int | None, number: int | None) -> None:
        """What had not left yet is lost, from the tail."""
        self.has_ended = True
        self.exit_code, self.signal = exit_code, number
        if self._link is not None:
            kept = self._own.randint(0, len(self._outbox))
            for _ in range(kept):
                self._link.put(self._outbox.popleft()[1])
            self._link.disconnect()

    # --- the thread of the link

    def _move_frames(self) -> None:
        link = self._link
        if link is None or not self.is_connected or self.has_ended or self._is_frozen:
            return
        for frames in link.take():
            if frames == STOP_FRAMES:
                if self.nature.ignores_stop and not self._has_left:
                    self._break("ignores stop")
                    continue
                self._has_heard_stop = True
                self._stop_by_s = min(self._stop_by_s, self._now_s + STOP_GRACE_S)
            self._inbox.append(frames)
        while self._outbox and self._outbox[0][0] <= self._now_s and link.put(self._outbox[0][1]):
            self._outbox.popleft()
        if self._has_left and self._has_heard_stop and not self._outbox:
            self._end(self._leaves_with, None)
        elif self._main_s == math.inf and not self._is_hung and not self._has_left:
            self._turn()

    def _beat(self) -> None:
        self._beat_s = self._now_s + self._beat_every_s
        if self._link is not None and not self._is_mute:
            self._link.put(encode(self._beat_message()))  # no room: the next one will tell

    # --- the main thread

    @property
    def _is_behind(self) -> bool:
        """It waits until the supervisor has taken something."""
        return len(self._outbox) >= OUTBOX_MESSAGES_MAX

    def _then(self, after_s: float, act: Callable[[], None]) -> None:
        self._main_s, self._main_act = self._now_s + after_s, act

    def _main(self) -> None:
        self._main_s = math.inf
        self._main_act()

    def _say(self, message: FromWorker) -> None:
        lag_s = self._own.uniform(0.0, self._lag_s) if self._lag_s else 0.0
        earliest_s = self._outbox[-1][0] if self._outbox else 0.0
        self._outbox.append((max(earliest_s, self._now_s + lag_s), self._dialogue.send(message)))

    def _leave(self, reason: str, code: int) -> None:
        self._say(Bye(reason, code))
        self._has_left, self._leaves_with = True, code
        self._main_s = math.inf
        self._hold_s = self._now_s + HEARD_S_MAX


def _nothing() -> None:
    return
