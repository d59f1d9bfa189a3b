"""The signals of the supervisor: the first one ends it, the second hurries it, SIGHUP reloads."""

import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import trio

from rbee.logs import Log
from rbee.supervisor.hang_up import Terminal
from rbee.supervisor.held_signals import HeldSignals

# Between two SIGHUPs: a storm of them costs so many looks.
PAUSE_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Ending:
    """How a shutdown begins, and who asked for it. The only writer of its events."""

    begun: Callable[[], None]  # called as it begins
    open_requests: Callable[[], int]
    log: Log
    drain_asked: trio.Event = field(default_factory=trio.Event)  # set by the first signal
    hurry: trio.Event = field(default_factory=trio.Event)  # set by the second
    hopeless: trio.Event = field(default_factory=trio.Event)  # set if there was no signal

    def begin(self, name: str) -> None:
        self.log.info("shutdown_begun", signal=name, open_requests=self.open_requests())
        self.drain_asked.set()
        self.begun()

    def give_up(self) -> None:
        """No slot will be ready any more. Who was asked to end already does so for that."""
        if not self.drain_asked.is_set():
            self.log.error(
                "hopeless", reason="every slot has failed for good: [restart] on_hopeless"
            )
            self.hopeless.set()
            self.drain_asked.set()
            self.begun()


async def watch_signals(
    ending: Ending, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """The first signal drains, the second hurries; those after it say nothing new."""
    with HeldSignals(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        while not ending.hurry.is_set():
            name = (await signals.wait()).name
            if ending.drain_asked.is_set():
                ending.log.warning("shutdown_hurried", signal=name)
                ending.hurry.set()
            else:
                ending.begin(name)


async def watch_hang_ups(
    ending: Ending,
    terminal: Terminal,
    reload: Callable[[], None],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """SIGHUP reloads, if it is no terminal's end."""
    with HeldSignals(signal.SIGHUP) as hang_ups:
        task_status.started()
        while True:
            await hang_ups.wait()
            if not terminal.has_closed:
                reload()
            elif not ending.drain_asked.is_set():
                ending.begin(signal.SIGHUP.name)
            await trio.sleep(PAUSE_S)
