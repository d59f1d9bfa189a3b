"""What becomes of workers stands in the audit log, and is counted."""

from dataclasses import dataclass, field
from typing import Any

import trio
from trio.testing import MockClock

from rbee.audit.events import Details, Event, Outcome
from rbee.config import RestartConfig
from rbee.metrics import Metrics, families
from rbee.supervisor.audited import Lives
from rbee.supervisor.slot import Slot, Surroundings, keep_filled
from tests.supervisor.fakes import FakeChild, FakeLaunch, Heard, NoLog, plan
from tests.supervisor.test_worker import LIMITS, Middle


@dataclass
class Kept:
    """An audit that keeps what it is told."""

    told: list[tuple[Details, Outcome]] = field(default_factory=list)

    def record(self, details: Details, *, actor: str, outcome: Outcome, **_: Any) -> None:
        assert actor.startswith("supervisor:")
        self.told.append((details, outcome))


async def test_a_worker_that_crashes_until_its_slot_fails_is_told_from_spawn_to_end(
    autojump_clock: MockClock,
) -> None:
    audit, slot, metrics = Kept(), Slot(plan()), Metrics([("m-0", "m")])
    children = [FakeChild(exit_after_s=1, signal=11) for _ in range(4)]
    around = Surroundings(
        FakeLaunch(*children), LIMITS, RestartConfig(), Heard(), Middle(), NoLog(),  # type: ignore[arg-type]
        lives=Lives(audit, metrics),  # type: ignore[arg-type]
    )  # fmt: skip
    with trio.move_on_after(60):
        await keep_filled(slot, around)
    events = [details.event for details, _ in audit.told]
    assert events == [Event.WORKER_SPAWN, Event.WORKER_CRASH, Event.WORKER_RESTART] * 4
    crash, restart = audit.told[1], audit.told[2]
    assert (crash[0].signal, crash[1]) == (11, Outcome.FAILURE)  # type: ignore[attr-defined]
    assert (restart[0].delay_ms, restart[1]) == (1000, Outcome.SUCCESS)  # type: ignore[attr-defined]
    last = audit.told[-1]
    assert (last[0].delay_ms, last[1]) == (None, Outcome.FAILURE)  # type: ignore[attr-defined]
    assert (families.WORKER_FAILURES, ("m-0", "m", "crash"), 4) in list(metrics.readings())


async def test_a_worker_that_is_stopped_is_told_as_shut_down(autojump_clock: MockClock) -> None:
    audit, slot, metrics = Kept(), Slot(plan()), Metrics([("m-0", "m")])
    around = Surroundings(
        FakeLaunch(FakeChild()), LIMITS, RestartConfig(), Heard(), Middle(), NoLog(),  # type: ignore[arg-type]
        lives=Lives(audit, metrics),  # type: ignore[arg-type]
    )  # fmt: skip
    with trio.move_on_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_filled, slot, around)
            await trio.sleep(5)
            slot.stop()
    assert [details.event for details, _ in audit.told] == [
        Event.WORKER_SPAWN,
        Event.WORKER_SHUTDOWN,
    ]
    assert not +metrics.kills()
