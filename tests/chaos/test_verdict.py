"""The judge of drills: each thing that may be wrong is told, and nothing else."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from rbee.chaos.answers import End, Judged
from rbee.chaos.clients import Tally
from rbee.chaos.scenario import Expected, Scenario
from rbee.chaos.scene import Scene
from rbee.chaos.verdict import Findings, judge


async def nothing(scene: Scene) -> None:
    """Nothing goes wrong."""


FAILED = frozenset({"worker_failed"})
SCENARIO = Scenario(name="test", fault=nothing, expected=Expected(errors=FAILED, restarts=(1, 2)))
KILLED = Scenario(
    name="test", fault=nothing, expected=Expected(may_cut=True, exit_code=-9), ends="by fault"
)


def tally(*judged: Judged) -> Tally:
    made = Tally()
    for each in (Judged(End.SERVED), *judged):
        made.add(each)
    return made


def good() -> Findings:
    return Findings(
        tally=tally(), errors=Counter(worker_failed=1), away_s=0.5, healed_s=1.5, restarts=1,
        descriptors_more=0, exit_code=0, end_s=0.2,
    )  # fmt: skip


def test_nothing_is_wrong_with_a_good_drill() -> None:
    assert judge(SCENARIO, good()) == []


Spoil = Callable[[Findings], None]


def _lost(found: Findings) -> None:
    found.tally = tally(Judged(End.LOST, "broken off after 7 bytes"))


def _refused(found: Findings) -> None:
    found.tally = tally(Judged(End.REFUSED, "queue_full"))


def _not_taken(found: Findings) -> None:
    found.tally.not_taken = 3


def _nothing_served(found: Findings) -> None:
    found.tally = Tally()


def _error(found: Findings) -> None:
    found.errors["sink_failed"] = 1


def _no_error(found: Findings) -> None:
    found.errors.clear()


def _too_many_restarts(found: Findings) -> None:
    found.restarts = 3


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_lost, "lost: broken off"),
        (_refused, "refused as 'queue_full'"),
        (_not_taken, "3 connections were not taken"),
        (_nothing_served, "the drill shows nothing"),
        (_error, "'sink_failed' at level error"),
        (_no_error, "never told 'worker_failed'"),
        (_too_many_restarts, "3 restarts, expected 1 to 2"),
    ],
)
def test_what_is_wrong_is_told_once(spoil: Spoil, told: str) -> None:
    found = good()
    spoil(found)
    [problem] = judge(SCENARIO, found)
    assert told in problem


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"away_s": 11.0}, "no request was served for 11.0 s"),
        ({"away_s": None}, "no request was served"),
        ({"healed_s": 10.5}, "a slot had no worker that serves for 10.5 s"),
        ({"descriptors_more": 4}, "4 descriptors more"),
        ({"strays": ["process 7 (sleep)"]}, "left while it served: process 7"),
        ({"left": ["zombie 8 (python)"]}, "left behind: zombie 8"),
        ({"exit_code": 70}, "exit code 70, expected 0"),
        ({"end_s": 12.5}, "it ended 12.5 s after its signal"),
        ({"audit": "the audit log, code 1"}, "the audit log"),
        ({"broken": "the server ended"}, "the server ended"),
    ],
)
def test_what_is_not_as_it_must_be_is_told(change: dict[str, object], told: str) -> None:
    [problem] = judge(SCENARIO, replace(good(), **change))  # type: ignore[arg-type]
    assert told in problem


def test_where_the_server_was_killed_answers_may_break_off_and_may_not_be_wrong() -> None:
    found = Findings(tally=tally(Judged(End.LOST, "broken off after 7 bytes")), exit_code=-9)
    assert judge(KILLED, found) == []
    found.tally = tally(Judged(End.LOST, "choice 0: wrong at character 2"))
    [problem] = judge(KILLED, found)
    assert "wrong at character 2" in problem
