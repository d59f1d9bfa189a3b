"""The hour: drawn from its seed, judged, and held for some seconds as `rbee chaos` holds it."""

import json
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import httpx2
import pytest
from trio.testing import MockClock

from rbee.chaos.answers import RETRIABLE, Asked, End, Judged
from rbee.chaos.asks import count_to
from rbee.chaos.clients import Clients, Load, Tally
from rbee.chaos.hour.figures import Figures, counts, judge
from rbee.chaos.hour.mix import MIX
from rbee.chaos.hour.plan import Orders, plan

ERRORS = (Path(__file__).parent.parent.parent / "docs" / "errors.md").read_text("utf-8")
ORDERS = Orders(60, 5, 1, sorted(MIX))
QUICK = ("worker-killed-busy", "worker-crashes-on-a-request", "reload-storm", "worker-talks-much")


def test_an_hour_of_a_few_seconds() -> None:
    command = [sys.executable, "-m", "rbee", "chaos", "--minutes", "0.06", "--every-s", "0.9"]
    command += ["--seed", "7", "--json", *(f"--scenario={name}" for name in QUICK)]
    done = subprocess.run(command, capture_output=True, timeout=110, check=False)
    report = json.loads(done.stdout)
    assert report["problems"] == []
    assert (done.returncode, report["passed"]) == (0, True)
    assert report["faults"] == dict.fromkeys(QUICK, 1)
    assert report["missed"] == {}
    last = report["last"]
    assert last["served"] > 0
    assert (last["lost"], last["wrong"], last["health_missed"]) == (0, 0, 0)
    assert last["health_answered"] > 0
    assert last["failures"] == report["drill"]["restarts"] == 3  # the guilty request takes two
    assert (report["drill"]["exit_code"], report["drill"]["left"]) == (0, 0)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("-s", "server-killed"), b"'server-killed' is none of the faults of --minutes"),
        (("--quick",), b"--minutes goes with"),
        (("--every-s", "0"), b"must be above 0"),
    ],
)
def test_what_an_hour_cannot_be_held_with_is_said(arguments: tuple[str, ...], told: bytes) -> None:
    command = [sys.executable, "-m", "rbee", "chaos", "--minutes", "1", *arguments]
    done = subprocess.run(command, capture_output=True, timeout=30, check=False)
    assert done.returncode == 64
    assert told in done.stderr


def test_the_same_seed_draws_the_same_hour_and_another_seed_another() -> None:
    assert plan(ORDERS) == plan(ORDERS)
    assert plan(ORDERS) != plan(Orders(60, 5, 2, ORDERS.kinds))


def test_each_interval_has_one_fault() -> None:
    strikes = plan(ORDERS)
    assert [int(each.at_s // 5) for each in strikes] == list(range(720))
    assert len({each.seed for each in strikes}) == 720


def test_all_kinds_come_about_as_often() -> None:
    often = Counter(each.kind for each in plan(ORDERS)).values()
    assert len(often) == len(MIX)
    assert max(often) - min(often) <= 1


def test_what_may_be_asked_again_is_what_the_document_says() -> None:
    told = re.findall(r"^\| `([a-z_]+)` \| (?:429|503) \|", ERRORS, re.MULTILINE)
    assert set(told) == RETRIABLE


def plain_client(timeout_s: float) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(timeout=timeout_s, trust_env=False)


class Scripted(Clients):
    """Clients of a server that answers so, one after the other."""

    def __init__(self, tries: int, *answers: Judged) -> None:
        asked = count_to(2, random.Random(1))
        super().__init__("http://localhost", Load(tries=tries), lambda: asked, plain_client)
        self.answers = list(answers)

    async def ask(self, client: httpx2.AsyncClient, asked: Asked) -> Judged:
        return self.answers.pop(0)


FULL = Judged(End.REFUSED, "queue_full")
GUILTY = Judged(End.REFUSED, "request_quarantined")
SERVED = Judged(End.SERVED)


@pytest.mark.parametrize(
    ("answers", "ending", "retried"),
    [
        ((FULL, FULL, SERVED), SERVED, 2),
        ((FULL, FULL, FULL), FULL, 2),
        ((GUILTY,), GUILTY, 0),
        ((FULL, Judged(End.LOST, "broken off")), Judged(End.LOST, "broken off"), 1),
    ],
)
async def test_a_client_asks_again_where_the_document_says_so(
    answers: tuple[Judged, ...], ending: Judged, retried: int, autojump_clock: MockClock
) -> None:
    clients = Scripted(3, *answers)
    async with plain_client(1) as client:
        assert await clients.ask_to_the_end(client, count_to(2, random.Random(1))) == ending
    assert clients.tally.retried == retried
    assert clients.answers == []


def test_lost_and_wrong_answers_are_counted_apart() -> None:
    tally = Tally()
    for what in ("broken off after 7 bytes", "choice 0: wrong at character 2"):
        tally.add(Judged(End.LOST, what))
    tally.add(FULL)
    tally.add(SERVED)
    assert counts(tally) == {"served": 1, "refused": 1, "retried": 0, "lost": 1, "wrong": 1}


def figures(**other: float) -> Figures:
    good: dict[str, float] = {
        "minute": 60, "faults": 720, "served": 9990, "refused": 10, "retried": 3, "lost": 0,
        "wrong": 0, "health_answered": 7200, "health_missed": 0, "health_slowest_s": 3.1,
        "failures": 900, "memory_bytes": 60_000_000, "descriptors": 60,
    }  # fmt: skip
    return Figures(**(good | other))  # type: ignore[arg-type]


def test_nothing_is_wrong_with_a_good_hour() -> None:
    assert judge(figures(), missed=30, missed_looks=[]) == []


@pytest.mark.parametrize(
    ("last", "missed", "told"),
    [
        (figures(refused=11), 0, "99.8900% of the requests were answered, not 99.9%"),
        (figures(lost=1), 0, "99.8900% of the requests"),
        (figures(health_missed=2), 0, "2 looks at /health/live without an answer: too slow"),
        (figures(health_answered=0), 0, "the hour shows nothing"),
        (figures(), 200, "200 of 720 faults found nothing to strike"),
    ],
)
def test_what_is_wrong_with_an_hour_is_told(last: Figures, missed: int, told: str) -> None:
    [problem] = judge(last, missed, ["too slow"])
    assert told in problem
