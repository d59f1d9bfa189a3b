"""Bugs that are planted in the supervisor, to see whether simulations find them.

Each is what a hurried change might leave behind. `planted` puts one in place for a while.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, Final

from rbee.dialogue import SupervisorDialogue
from rbee.rate_limits import Priority
from rbee.supervisor import breaker, dispatch, liveness, quarantine, restart, slot, worker
from rbee.supervisor.api.generation import Generation
from rbee.supervisor.api.open_requests import OpenRequests
from rbee.supervisor.backlog import Backlog
from rbee.supervisor.breaker import Breaker
from rbee.supervisor.failover import Course
from rbee.supervisor.launch import Launcher
from rbee.supervisor.ledger import Ledger
from rbee.supervisor.lifecycle import TAKES_REQUESTS
from rbee.supervisor.line import Line
from rbee.supervisor.pool import Pool
from rbee.supervisor.vitals import Vitals
from rbee.supervisor.worker import Worker
from tests.simulation.simulate import Outcome, simulate

Mutant = tuple[Any, str, Any]  # where, what, and what stands there instead


def _drops_a_token(course: Course) -> tuple[int, ...]:
    course._sent_at = len(course._delivered)
    return tuple(course._delivered)[:-1]


def _tells_the_prompt_again(course: Course, delta: Any) -> Any:
    course._delivered.extend(delta.token_ids)
    return delta


def _keeps_what_was_cancelled(pool: Pool, request_id: int, reason: str) -> None:
    request = pool._open.pop(request_id, None)
    if request is not None and request.worker is None:
        pool._dispatch.remove(request)


def _forgets_who_was_interrupted(pool: Pool, request: Any) -> None:
    del pool._open[request.request_id]


def _sees_no_hang(_signs: Any, _limits: Any, now_s: float) -> Any:
    return liveness.Judgement(liveness.Verdict.ALIVE, look_again_s=now_s + 1.0)


def _is_not_stopped(mine: slot.Slot) -> None:
    mine._ask()


def _never_waits(_failures: int, _limits: Any, _chance: float) -> float:
    return 0.0


def _never_spreads(failures: int, limits: Any, _chance: float) -> float:
    return float(min(limits.delay_s_max, limits.delay_s_min * 2.0 ** (failures - 1)))


def _tries_for_ever(ending: Any, record: Any, limits: Any, chance: float) -> Any:
    verdict = _judge(ending, record, limits, chance)
    if verdict.delay_s is None:
        return restart.Verdict(verdict.failures, 1.0, failure=verdict.failure)
    return verdict


def _excuses_nobody(_vitals: Vitals, _late_s: float, _now_s: float) -> None:
    return


def _does_not_wait_for_the_end(_launcher: Launcher, _child: Any) -> Any:
    async def go() -> None:
        return

    return go()


def _ends_twice(generation: Generation, error: Any) -> None:
    generation._close(error.code.value)
    generation._reply.fail(error)


def _leaves_its_siblings_open(generation: Generation, outcome: str) -> None:
    generation._is_over = True
    generation._visit.note_outcome(outcome)


def _loses_a_place(line: Backlog, model: str, request_id: int, **_how: Any) -> bool:
    mine = line._lines.get(model)
    return mine is not None and request_id in mine and mine.remove(request_id) >= 0


def _serves_the_highest(waiting: Line) -> Priority:
    return next(priority for priority, ids in waiting._classes.items() if ids)


def _puts_who_returns_at_the_end(waiting: Line, request_id: int, tokens: int) -> None:
    waiting.add(request_id, tokens, Priority.LOW)


def _suspects_work_with_others(workers: Any) -> Any:
    return next((each for each in workers if each.takes_requests), None)


def _tries_equals_side_by_side(_placing: dispatch.Dispatch, _model: str) -> set[bytes]:
    return set()


def _keeps_the_dead(placing: dispatch.Dispatch, worker: Worker) -> Any:
    mine = list(placing._there._at.pop(worker, {}).values())
    for request in mine:
        del placing._there._sent[request.wire_id]
        request.worker = None
    return mine, placing._there._leaving.pop(worker, [])  # also those whom it has let go


def _can_be_cancelled_for_ever(_requests: OpenRequests, _name: str, _request: Any) -> None:
    return


def _convicts_at_once(guilt: quarantine.Quarantine, at: str, in_work: Any, now_s: float) -> Any:
    guilty = next(iter(in_work))
    guilt._barred_until_s[guilty] = guilt._until_s = now_s + 1000.0
    return quarantine.Verdict(guilty, (at,))


def _takes_what_is_drained(worker: Worker) -> bool:
    return worker.ready is not None and worker.open_requests < worker.batch_size


def _overfills(worker: Worker) -> bool:
    return worker.state in TAKES_REQUESTS and not worker.has_left.is_set()


def _hears_the_cancelled(dialogue: SupervisorDialogue, request_id: int) -> None:
    dialogue._open.pop(request_id, None)


def _never_forgets_failures(mine: Breaker) -> None:
    mine.reason = ""


def _counts_on_what_is_free(ledger: Ledger) -> int:
    return ledger.total_bytes if ledger.gpu is None else ledger.gpu.memory_free_bytes


def _believes_the_books(ledger: Ledger) -> int:
    return ledger.total_bytes - ledger.booked_bytes


_judge: Final = restart.judge

MUTANTS: Final[dict[str, Mutant]] = {
    "a failover drops a token": (Course, "send", _drops_a_token),
    "the prompt is counted again": (Course, "take", _tells_the_prompt_again),
    "a cancel is not passed on": (Pool, "cancel", _keeps_what_was_cancelled),
    "an interrupted request is lost": (Pool, "_fail_over", _forgets_who_was_interrupted),
    "restarts do not wait": (restart, "_delay_s", _never_waits),
    "restarts are not spread": (restart, "_delay_s", _never_spreads),
    "the breaker never opens": (breaker, "judge", _tries_for_ever),
    "a sleep is held against workers": (Vitals, "excuse", _excuses_nobody),
    "hangs are not seen": (worker, "judge", _sees_no_hang),
    "a stopped slot is filled": (slot.Slot, "stop", _is_not_stopped),
    "the ladder is not gone down": (Launcher, "_go_down_ladder", _does_not_wait_for_the_end),
    "an error follows the end": (Generation, "fail", _ends_twice),
    "other choices stay open": (Generation, "_close", _leaves_its_siblings_open),
    "the queue's length is wrong": (Backlog, "remove", _loses_a_place),
    "a class waits for ever": (Line, "_next_class", _serves_the_highest),
    "who comes back has lost its place": (Line, "add_first", _puts_who_returns_at_the_end),
    "suspects work with others": (dispatch, "choose_idle", _suspects_work_with_others),
    "equals are tried side by side": (dispatch.Dispatch, "_heard", _tries_equals_side_by_side),
    "a dead worker is kept for suspects": (dispatch.Dispatch, "take_back", _keeps_the_dead),
    "what is over can be cancelled": (OpenRequests, "discard", _can_be_cancelled_for_ever),
    "one crash is enough for a verdict": (quarantine.Quarantine, "crashed", _convicts_at_once),
    "drained workers get requests": (Worker, "takes_requests", property(_takes_what_is_drained)),
    "batches are overfilled": (Worker, "takes_requests", property(_overfills)),
    "cancelled requests are forgotten": (SupervisorDialogue, "cancel", _hears_the_cancelled),
    "two count on the same free memory": (Ledger, "_available_bytes", _counts_on_what_is_free),
    "memory that is lost is counted on": (Ledger, "_available_bytes", _believes_the_books),
    "a reset resets nothing": (Breaker, "reset", _never_forgets_failures),
}


@contextlib.contextmanager
def planted(name: str) -> Iterator[None]:
    where, what, instead = MUTANTS[name]
    before = vars(where)[what]
    setattr(where, what, instead)
    try:
        yield
    finally:
        setattr(where, what, before)


def find(name: str, seeds: range, duration_s: float) -> Outcome | None:
    """The first of the simulations that shows it."""
    with planted(name):
        for seed in seeds:
            outcome = simulate(seed, duration_s)
            if not outcome.is_good:
                return outcome
    return None
