"""How a worker is judged by what it says and when: a table, and what holds for all of them."""

import math
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rbee.config import WorkerConfig
from rbee.supervisor.liveness import (
    FATAL,
    LifePhase,
    Pace,
    Signs,
    Verdict,
    judge,
    load_budget_s,
    step_budget_s,
    token_budget_s,
)

LIMITS = WorkerConfig()
FAST = Pace(load_gap_s=0.5, prompt_tokens_per_s=400.0, step_s=0.03)
SLOW = Pace(load_gap_s=20.0, prompt_tokens_per_s=2.0, step_s=6.0)


def signs(phase: LifePhase, at_s: float = 0.0, **known: object) -> Signs:
    """All signs came at the same time, but for those that are named."""
    base = Signs(phase, 0.0, beat_s=at_s, heard_s=at_s, step_s=at_s, token_s=at_s, read_s=at_s)
    return replace(base, **known)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("known", "now_s", "verdict"),
    [
        (signs(LifePhase.STARTING), 59.9, Verdict.ALIVE),
        (signs(LifePhase.STARTING), 60, Verdict.WEDGED),
        # Importing holds the interpreter lock: beats do not count.
        (signs(LifePhase.IMPORTING), 14, Verdict.ALIVE),
        (signs(LifePhase.IMPORTING), 16, Verdict.SLOW),
        (signs(LifePhase.IMPORTING), 30, Verdict.WEDGED),
        (signs(LifePhase.LOADING, 9), 14, Verdict.ALIVE),
        (signs(LifePhase.LOADING, 9), 14.3, Verdict.SLOW),
        (signs(LifePhase.LOADING, 9), 19.25, Verdict.SILENT),
        (signs(LifePhase.LOADING, 60, step_s=31), 60.9, Verdict.SLOW),
        (signs(LifePhase.LOADING, 60, step_s=31), 61, Verdict.WEDGED),
        (signs(LifePhase.LOADING, 60, step_s=31, pace=SLOW), 65, Verdict.ALIVE),
        (signs(LifePhase.LOADING, 3599), 3600, Verdict.WEDGED),
        (signs(LifePhase.SERVING, 100, step_s=0, token_s=0), 105.2, Verdict.ALIVE),
        (signs(LifePhase.SERVING, 100, step_s=0, token_s=0), 105.25, Verdict.SLOW),
        (signs(LifePhase.SERVING, 100, step_s=0, token_s=0), 110.25, Verdict.SILENT),
        # Tokens that come are signs of life where beats find no room.
        (signs(LifePhase.WORKING, 112, beat_s=100), 112, Verdict.ALIVE),
        (signs(LifePhase.WORKING, 112, beat_s=100), 117.25, Verdict.SILENT),
        (signs(LifePhase.WORKING, 60, step_s=0, token_s=0), 60, Verdict.WEDGED),
        (signs(LifePhase.WORKING, 60, step_s=0, token_s=0, pace=SLOW), 60, Verdict.SLOW),
        (signs(LifePhase.WORKING, 60, step_s=50, token_s=50, pace=FAST), 60, Verdict.WEDGED),
        (signs(LifePhase.WORKING, 60, token_s=0, read_s=0), 59.9, Verdict.SLOW),
        (signs(LifePhase.WORKING, 60, token_s=0, read_s=0), 60, Verdict.LIVELOCK),
        (signs(LifePhase.WORKING, 60, token_s=50, read_s=9, pace=FAST), 60, Verdict.LIVELOCK),
        (signs(LifePhase.WORKING, 60, token_s=9, read_s=51, pace=FAST), 60, Verdict.SLOW),
        (signs(LifePhase.WORKING, 299, token_s=0, is_reading=True), 299, Verdict.SLOW),
        (signs(LifePhase.WORKING, 300, token_s=0, is_reading=True), 300, Verdict.LIVELOCK),
        # Steps, of which none reads anything.
        (signs(LifePhase.WORKING, 60, token_s=0, read_s=1, is_reading=True), 60, Verdict.SLOW),
        (signs(LifePhase.WORKING, 60, token_s=0, read_s=0, is_reading=True), 60, Verdict.LIVELOCK),
        (
            signs(LifePhase.WORKING, 60, token_s=0, read_s=50, is_reading=True, pace=FAST),
            60,
            Verdict.LIVELOCK,
        ),
        (signs(LifePhase.LEAVING, 9, step_s=0), 9.9, Verdict.ALIVE),
        (signs(LifePhase.LEAVING, 9, step_s=0), 10, Verdict.WEDGED),
        (signs(LifePhase.GONE), 1e9, Verdict.GONE),
    ],
)
def test_a_worker_is_judged_by_the_first_limit_it_passes(
    known: Signs, now_s: float, verdict: Verdict
) -> None:
    judgement = judge(known, LIMITS, now_s)
    assert judgement.verdict is verdict, judgement
    assert judgement.is_fatal == (verdict in FATAL)
    assert bool(judgement.reason) == (verdict not in (Verdict.ALIVE, Verdict.GONE))


def test_a_reason_names_what_was_missing_and_for_how_long() -> None:
    fatal = judge(signs(LifePhase.SERVING), LIMITS, 11.0)
    assert fatal.reason == "hung: no beat for 10.25 s"
    slow = judge(signs(LifePhase.SERVING), LIMITS, 6.0)
    assert slow.reason == "no beat for 6.0 s, 10.25 s are allowed"


@pytest.mark.parametrize(
    ("pace", "prompt_tokens", "step_s", "token_s"),
    [
        (Pace(), 0, 60, 60),
        (FAST, 0, 10, 10),
        (SLOW, 0, 120, 120),
        (Pace(), 20, 60, 300),
        (Pace(), 200, 400, 1000),  # 4 and 10 x 200 / 2 tokens per second
        (FAST, 200, 10, 300),
        (FAST, 32_000, 320, 800),
        (SLOW, 32_000, 600, 3600),
        (Pace(prompt_tokens_per_s=1e6), 100_000, 600, 2000),  # what was cached shows nothing
        (Pace(prompt_tokens_per_s=400), 200, 60, 300),
    ],
)
def test_budgets_grow_with_the_work_and_shrink_with_the_measured_speed(
    pace: Pace, prompt_tokens: int, step_s: float, token_s: float
) -> None:
    known = signs(
        LifePhase.WORKING, pace=pace, prompt_tokens=prompt_tokens, is_reading=prompt_tokens > 0
    )
    assert step_budget_s(known, LIMITS) == pytest.approx(step_s)
    assert token_budget_s(known, LIMITS) == pytest.approx(token_s)


def test_a_load_gets_four_times_the_longest_wait_so_far() -> None:
    assert load_budget_s(Pace(), LIMITS) == 30
    assert load_budget_s(FAST, LIMITS) == 30
    assert load_budget_s(SLOW, LIMITS) == 80
    assert load_budget_s(Pace(load_gap_s=1e6), LIMITS) == 3600


TIMES = st.floats(0, 1e5)
PACES = st.builds(
    Pace,
    st.none() | st.floats(0, 1e4),
    st.none() | st.floats(0.01, 1e7),
    st.none() | st.floats(1e-6, 1e4),
)
ALL_SIGNS = st.builds(
    Signs,
    st.sampled_from(LifePhase), TIMES, TIMES, TIMES, TIMES, TIMES, TIMES,
    st.integers(0, 1 << 24), st.booleans(), PACES,
)  # fmt: skip


@given(ALL_SIGNS, TIMES)
def test_who_is_let_live_is_looked_at_again_in_time(known: Signs, now_s: float) -> None:
    judgement = judge(known, LIMITS, now_s)
    if judgement.verdict in (Verdict.ALIVE, Verdict.SLOW):
        assert judgement.look_again_s > now_s
        # Nothing changes before that time, unless the worker says something.
        middle_s = (now_s + min(judgement.look_again_s, now_s + 1e6)) / 2
        assume(now_s < middle_s < judgement.look_again_s)
        assert judge(known, LIMITS, middle_s).verdict is judgement.verdict


@given(ALL_SIGNS, TIMES, TIMES)
def test_time_makes_no_judgement_milder(known: Signs, now_s: float, later_s: float) -> None:
    if judge(known, LIMITS, now_s).is_fatal:
        assert judge(known, LIMITS, now_s + later_s).is_fatal


@given(
    ALL_SIGNS, TIMES, st.sampled_from(("beat_s", "heard_s", "step_s", "token_s", "read_s")), TIMES
)
def test_a_later_sign_of_life_is_never_held_against_a_worker(
    known: Signs, now_s: float, sign: str, more_s: float
) -> None:
    later = replace(known, **{sign: getattr(known, sign) + more_s})
    if judge(later, LIMITS, now_s).is_fatal:
        assert judge(known, LIMITS, now_s).is_fatal


@given(ALL_SIGNS, st.floats(0, 60))
def test_a_silent_worker_is_found_within_ten_seconds_of_its_last_beat_due(
    known: Signs, extra_s: float
) -> None:
    assume(known.phase not in (LifePhase.STARTING, LifePhase.IMPORTING, LifePhase.GONE))
    last_due_s = max(known.beat_s, known.heard_s) + LIMITS.beat_s
    assert judge(known, LIMITS, last_due_s + 10 + extra_s).is_fatal


@given(st.floats(0.001, 1), st.floats(0.001, LIMITS.prompt_timeout_s - 1), st.floats(2, 10_000))
def test_a_healthy_prefill_is_never_ended(
    chunk: float, wanted_s: float, tokens_per_s: float
) -> None:
    # It beats, its steps come each ``chunk_s``, and it reads as fast as it ever did.
    prompt_tokens = max(1, int(wanted_s * tokens_per_s))
    total_s = prompt_tokens / tokens_per_s
    chunk_s = min(120.0, chunk * max(total_s, 10))
    pace = Pace(prompt_tokens_per_s=tokens_per_s, step_s=chunk_s)
    known = Signs(
        LifePhase.WORKING, started_s=0, beat_s=total_s, heard_s=total_s,
        step_s=max(0.0, total_s - chunk_s), token_s=0, read_s=max(0.0, total_s - chunk_s),
        prompt_tokens=prompt_tokens, is_reading=True, pace=pace,
    )  # fmt: skip
    assert not judge(known, LIMITS, math.nextafter(total_s, 0)).is_fatal


@given(ALL_SIGNS, TIMES)
def test_every_budget_stays_between_floor_and_cap(known: Signs, now_s: float) -> None:
    assert 10 <= step_budget_s(known, LIMITS) <= 600
    assert 10 <= token_budget_s(known, LIMITS) <= 3600
    assert 30 <= load_budget_s(known.pace, LIMITS) <= 3600
