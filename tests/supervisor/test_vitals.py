"""What is gathered of a worker's life from what it says."""

import pytest

from rbee.config import WorkerConfig
from rbee.supervisor.liveness import LifePhase, Pace, Verdict, judge
from rbee.supervisor.vitals import LOAD_BYTES_MIN, PROMPTS_KEPT, Vitals
from rbee.wire import Beat, Delta, Loading, Phase, Step

LIMITS = WorkerConfig()


def beat(phase: Phase, step: int = 0, **more: object) -> Beat:
    return Beat(phase, step, 0, {}, 0.0, **{"rss_bytes": 0, "vram_bytes": 0, **more})  # type: ignore[arg-type]


def loading() -> Vitals:
    vitals = Vitals(0)
    vitals.hear_hello(0)
    vitals.hear_loading(Loading(Phase.LOADING, 0.0), 0)
    return vitals


def test_an_import_that_holds_the_interpreter_lock_is_not_judged_by_beats() -> None:
    vitals = Vitals(0)
    vitals.hear_hello(1)
    assert judge(vitals.signs(LifePhase.LOADING), LIMITS, 30.9).verdict is Verdict.SLOW
    assert judge(vitals.signs(LifePhase.LOADING), LIMITS, 31).verdict is Verdict.WEDGED


def test_memory_that_grows_shows_that_loading_goes_on() -> None:
    vitals = loading()
    for number in range(1, 20):
        rss_bytes = number * LOAD_BYTES_MIN
        vitals.hear_beat(beat(Phase.LOADING, rss_bytes=rss_bytes), 5.0 * number)
    assert judge(vitals.signs(LifePhase.LOADING), LIMITS, 96).verdict is Verdict.ALIVE


def test_beats_alone_do_not_show_that_loading_goes_on() -> None:
    vitals = loading()
    for number in range(7):
        vitals.hear_beat(beat(Phase.LOADING), 5.0 * number)
    assert judge(vitals.signs(LifePhase.LOADING), LIMITS, 30).verdict is Verdict.WEDGED


def test_a_slow_disk_gets_the_time_that_it_needs() -> None:
    vitals = loading()
    for number in range(1, 11):  # each tenth takes longer than the one before
        now_s = 20.0 * number * (number + 1) / 2
        vitals.hear_beat(beat(Phase.LOADING), now_s - 1)
        if number > 1:
            verdict = judge(vitals.signs(LifePhase.LOADING), LIMITS, now_s).verdict
            assert verdict in (Verdict.ALIVE, Verdict.SLOW)
        vitals.hear_loading(Loading(Phase.LOADING, number / 10), now_s)


def first_token(vitals: Vitals, request_id: int, prompt_tokens: int, now_s: float) -> None:
    delta = Delta(request_id, 0, (1,), "x", None, prompt_tokens)
    vitals.hear_step(Step(1, (delta,)), now_s)


def test_the_speed_of_reading_is_that_of_the_slowest_of_the_last_prompts() -> None:
    vitals = Vitals(0)
    for request_id, took_s in enumerate((1.0, 4.0, 2.0)):
        vitals.request_sent(request_id, 10.0)
        first_token(vitals, request_id, 400, 10.0 + took_s)
    assert vitals.pace.prompt_tokens_per_s == pytest.approx(100)
    for request_id in range(10, 10 + PROMPTS_KEPT):
        vitals.request_sent(request_id, 20.0)
        first_token(vitals, request_id, 400, 21.0)
    assert vitals.pace.prompt_tokens_per_s == pytest.approx(400)


def test_a_short_prompt_and_one_that_was_cancelled_tell_no_speed() -> None:
    vitals = Vitals(0)
    vitals.request_sent(1, 0.0)
    first_token(vitals, 1, 5, 3.0)
    vitals.request_sent(2, 0.0)
    vitals.request_cancelled(2)
    first_token(vitals, 2, 400, 3.0)
    assert vitals.pace == Pace()


def test_a_slow_step_is_forgotten_slowly_and_known_to_the_next_worker() -> None:
    vitals = Vitals(0)
    vitals.hear_beat(beat(Phase.DECODE, 1, step_s=2.0), 5)
    vitals.hear_beat(beat(Phase.DECODE, 2, step_s=0.1), 10)
    assert vitals.pace.step_s == pytest.approx(1.8)
    after = Vitals(20, vitals.pace)
    assert after.pace.step_s == pytest.approx(1.8)


def test_steps_without_a_token_are_steps() -> None:
    vitals = Vitals(0)
    vitals.asked_to_work(0)
    for number in range(13):
        vitals.hear_beat(beat(Phase.DECODE, number), 5.0 * number)
    signs = vitals.signs(LifePhase.WORKING)
    assert judge(signs, LIMITS, 60).verdict is Verdict.LIVELOCK


def test_what_the_supervisor_slept_through_is_no_silence() -> None:
    vitals = Vitals(0)
    vitals.hear_beat(beat(Phase.IDLE), 5)
    vitals.excuse(3600, 3606)
    assert judge(vitals.signs(LifePhase.SERVING), LIMITS, 3606).verdict is Verdict.ALIVE
    assert vitals.beat_s <= 3606
