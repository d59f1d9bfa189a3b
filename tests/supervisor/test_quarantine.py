"""Suspects, the guilty and the quarantine: the rules by themselves."""

import math

import pytest

from rbee.ask import Ask, Message, Sampling
from rbee.supervisor.quarantine import (
    FINGERPRINTS_MAX,
    SUSPECT_S,
    TOKENS_APART,
    TOKENS_MORE,
    Quarantine,
    Standing,
    Verdict,
)

A, B, C = b"a", b"b", b"c"


@pytest.fixture
def quarantine() -> Quarantine:
    return Quarantine(b"secret", quarantine_s=100)


def test_equal_asks_have_one_fingerprint_and_others_another(quarantine: Quarantine) -> None:
    def ask(text: str = "hi", **more: float) -> Ask:
        bias = {2: 1.0, 1: -1.0} if text == "hi" else {}
        sampling = Sampling(logit_bias=bias, **more)  # type: ignore[arg-type]
        return Ask(model="m", messages=(Message(role="user", content=text),), sampling=sampling)

    swapped = Ask(
        model="m",
        messages=(Message(role="user", content="hi"),),
        sampling=Sampling(logit_bias={1: -1.0, 2: 1.0}),
    )
    assert quarantine.fingerprint(ask()) == quarantine.fingerprint(swapped)
    others = [ask("ho"), ask(temperature=0.5), ask(seed=1)]
    marks = {quarantine.fingerprint(each) for each in (ask(), *others)}
    assert len(marks) == 4
    assert quarantine.fingerprint(ask()) != Quarantine(b"other", 100).fingerprint(ask())


def test_nothing_is_held_against_anybody_at_first(quarantine: Quarantine) -> None:
    assert quarantine.is_empty(0.0)
    assert quarantine.standing(A, 0.0) is Standing.CLEAR


def test_all_that_was_in_work_at_a_crash_is_suspected(quarantine: Quarantine) -> None:
    assert quarantine.crashed("m-0", {A: 0, B: 3}, 0.0) == Verdict()
    assert quarantine.standing(A, 1.0) is quarantine.standing(B, 1.0) is Standing.SUSPECT
    assert quarantine.standing(C, 1.0) is Standing.CLEAR
    assert not quarantine.is_empty(1.0)


def test_alone_at_a_second_crash_it_is_guilty_of_both(quarantine: Quarantine) -> None:
    quarantine.crashed("m-0", {A: 0, B: 3}, 0.0)
    assert quarantine.crashed("m-1", {A: 0}, 1.0) == Verdict(A, ("m-0", "m-1"))
    assert quarantine.standing(A, 2.0) is Standing.QUARANTINED
    assert quarantine.standing(B, 2.0) is Standing.CLEAR


def test_alone_at_a_first_crash_it_is_a_suspect(quarantine: Quarantine) -> None:
    assert quarantine.crashed("m-0", {A: 0}, 0.0) == Verdict()
    assert quarantine.standing(A, 0.0) is Standing.SUSPECT


def test_in_company_nobody_is_guilty_however_often(quarantine: Quarantine) -> None:
    for _ in range(10):
        assert quarantine.crashed("m-0", {A: 0, B: 0}, 0.0) == Verdict()


def test_it_is_cleared_by_what_it_brings_beyond_the_place_of_the_crash(
    quarantine: Quarantine,
) -> None:
    quarantine.crashed("m-0", {A: 40, B: 0}, 0.0)
    assert not quarantine.brought(A, 40 + TOKENS_MORE - 1)
    assert quarantine.brought(A, 40 + TOKENS_MORE)
    assert quarantine.standing(A, 0.0) is Standing.CLEAR
    assert quarantine.brought(B, TOKENS_MORE)


def test_it_is_cleared_by_its_end(quarantine: Quarantine) -> None:
    quarantine.crashed("m-0", {A: 40}, 0.0)
    quarantine.ended(A)
    assert quarantine.standing(A, 0.0) is Standing.CLEAR
    assert quarantine.crashed("m-0", {A: 40}, 1.0) == Verdict(), "what is cleared is not guilty"


def test_many_suspects_share_the_time_apart(quarantine: Quarantine) -> None:
    crowd = {bytes([number]): 10_000 for number in range(16)}
    quarantine.crashed("m-0", crowd, 0.0)
    each = TOKENS_APART // 16
    assert not quarantine.brought(bytes([3]), each - 1)
    assert quarantine.brought(bytes([3]), each)


def test_each_crash_that_stays_unexplained_makes_the_time_apart_longer(
    quarantine: Quarantine,
) -> None:
    needed = []
    for _ in range(3):
        quarantine.crashed("m-0", {A: 10**6, B: 0}, 0.0)
        needed.append(quarantine._suspects[A].tokens_apart)
    assert needed == [TOKENS_APART // 2, 4 * TOKENS_APART // 2, math.inf]


def test_who_was_cleared_of_an_older_crash_stays_so_when_a_later_one_is_explained(
    quarantine: Quarantine,
) -> None:
    quarantine.crashed("m-0", {A: 0, C: 0}, 0.0)
    quarantine.brought(A, TOKENS_MORE)
    quarantine.crashed("m-0", {A: 0, B: 0}, 0.0)
    assert quarantine.crashed("m-0", {B: 0}, 0.0).guilty == B
    assert quarantine.standing(A, 0.0) is Standing.CLEAR
    assert quarantine.standing(C, 0.0) is Standing.SUSPECT


def test_all_is_forgotten_in_time(quarantine: Quarantine) -> None:
    quarantine.crashed("m-0", {A: 0, B: 0}, 0.0)
    quarantine.crashed("m-0", {A: 0}, 1.0)
    assert quarantine.standing(A, 100.9) is Standing.QUARANTINED
    assert quarantine.standing(A, 101.1) is Standing.CLEAR
    quarantine.crashed("m-0", {A: 0}, 200.0)
    assert quarantine.standing(A, 200.0 + SUSPECT_S) is Standing.CLEAR
    assert quarantine.is_empty(200.0 + SUSPECT_S)


def test_a_quarantine_of_no_time_bars_nobody() -> None:
    quarantine = Quarantine(b"secret", 0)
    quarantine.crashed("m-0", {A: 0}, 0.0)
    assert quarantine.crashed("m-0", {A: 0}, 0.0).guilty == A
    assert quarantine.standing(A, 0.0) is Standing.CLEAR


def test_there_are_never_more_records_than_the_limit(quarantine: Quarantine) -> None:
    for number in range(3):
        crowd = {b"%d %d" % (number, each): 0 for each in range(FINGERPRINTS_MAX)}
        quarantine.crashed("m-0", crowd, 0.0)
    assert len(quarantine._suspects) == FINGERPRINTS_MAX
    assert quarantine.standing(b"2 0", 0.0) is Standing.SUSPECT
