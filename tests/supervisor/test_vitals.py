"""What is gathered of a worker's life from what it says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.config import WorkerConfig
from rbee.errors import ErrorCode
from rbee.supervisor.liveness import LifePhase, Pace, Verdict, judge
from rbee.supervisor.vitals import LOAD_BYTES_MIN, PROMPTS_KEPT, Vitals
from rbee.wire import Beat, Delta, Failed, Loading, Phase, Step

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


def test_the_steps_of_a_short_prompt_tell_how_fast_it_is_read() -> None:
    vitals = Vitals(0)
    vitals.request_sent(1, 0.0)
    first_token(vitals, 1, 5, 3.0)
    assert vitals.pace.prompt_tokens_per_s is None
    vitals.hear_beat(beat(Phase.DECODE, 1, read_tokens=5, read_tokens_per_s=20.0), 5)
    assert vitals.pace.prompt_tokens_per_s == pytest.approx(20)
    vitals.request_sent(2, 10.0)
    first_token(vitals, 2, 400, 11.0)
    assert vitals.pace.prompt_tokens_per_s == pytest.approx(20), "the slower one counts"


def test_who_hangs_reading_its_second_prompt_is_found_as_soon_as_one_who_brings_tokens() -> None:
    vitals = Vitals(0)
    vitals.asked_to_work(0)
    vitals.request_sent(1, 0)
    first_token(vitals, 1, 5, 0.1)
    vitals.hear_beat(beat(Phase.IDLE, 9, read_tokens=5, read_tokens_per_s=90.0, step_s=0.02), 5)
    vitals.asked_to_work(7)
    for now_s in (10, 15):
        told = beat(Phase.PREFILL, 9, prompt_tokens=20, read_tokens=5, step_s=0.02)
        vitals.hear_beat(told, now_s)
    signs = vitals.signs(LifePhase.WORKING)
    assert judge(signs, LIMITS, 17).verdict is Verdict.WEDGED


def test_prompts_that_are_read_on_are_progress_and_steps_alone_are_none() -> None:
    vitals = Vitals(0)
    vitals.asked_to_work(0)
    for number in range(1, 40):
        told = beat(Phase.PREFILL, number, prompt_tokens=9000, read_tokens=number, step_s=0.1)
        vitals.hear_beat(told, 5.0 * number)
    assert not judge(vitals.signs(LifePhase.WORKING), LIMITS, 200).is_fatal
    for number in range(40, 200):
        told = beat(Phase.PREFILL, number, prompt_tokens=9000, read_tokens=39, step_s=0.1)
        vitals.hear_beat(told, 5.0 * number)
    assert judge(vitals.signs(LifePhase.WORKING), LIMITS, 1000).verdict is Verdict.LIVELOCK


def test_a_step_that_came_before_the_beat_that_counts_it_is_no_later_for_it() -> None:
    vitals = Vitals(0)
    vitals.asked_to_work(0)
    vitals.hear_beat(beat(Phase.DECODE, 1, step_s=0.02), 0)
    vitals.hear_step(Step(7, (Delta(1, 0, (1,), "x"),)), 1)
    vitals.hear_beat(beat(Phase.DECODE, 7, step_s=0.02), 5)
    assert judge(vitals.signs(LifePhase.WORKING), LIMITS, 11).verdict is Verdict.WEDGED


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
    vitals.request_cancelled(2, 1.0)
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


def test_tokens_that_a_beat_tells_of_count_though_they_have_not_come_yet() -> None:
    vitals = Vitals(0)
    vitals.asked_to_work(0)
    vitals.hear_beat(beat(Phase.PREFILL, 1, prompt_tokens=20_000), 5)
    for number in range(2, 40):
        vitals.hear_beat(beat(Phase.PREFILL, number, prompt_tokens=20_000), 5.0 * number)
    told = Beat(Phase.DECODE, 40, 3, {1: 3}, 0.0, rss_bytes=0, vram_bytes=0)
    vitals.hear_beat(told, 200)
    assert judge(vitals.signs(LifePhase.WORKING), LIMITS, 200.25).verdict is Verdict.ALIVE


def test_what_the_supervisor_slept_through_is_no_silence() -> None:
    vitals = Vitals(0)
    vitals.hear_beat(beat(Phase.IDLE), 5)
    vitals.excuse(3600, 3606)
    assert judge(vitals.signs(LifePhase.SERVING), LIMITS, 3606).verdict is Verdict.ALIVE
    assert vitals.beat_s <= 3606


@pytest.mark.parametrize("code", [ErrorCode.CANCELLED, ErrorCode.DEADLINE_EXCEEDED])
def test_requests_that_are_given_up_do_not_hide_a_livelock(code: ErrorCode) -> None:
    vitals = Vitals(0)
    vitals.asked_to_work(0)
    for number in range(13):
        vitals.hear_beat(beat(Phase.DECODE, number), 5.0 * number)
        vitals.hear_last_word(Failed(number, code, "x"), 5.0 * number)
    signs = vitals.signs(LifePhase.WORKING)
    assert judge(signs, LIMITS, 60).verdict is Verdict.LIVELOCK


REFUSED = ErrorCode.CONTEXT_LENGTH_EXCEEDED


def others_come_and_go(vitals: Vitals, code: ErrorCode | None, until_s: int) -> None:
    """One after the other, each for 3 s. None: the client hangs up."""
    for number in range(10, 10 + until_s // 3):
        now_s = 3.0 * (number - 10)
        vitals.request_sent(number, now_s)
        vitals.hear_beat(beat(Phase.PREFILL, number, prompt_tokens=20), now_s + 1)
        if code is None:
            vitals.request_cancelled(number, now_s + 3)
            vitals.hear_last_word(None, now_s + 3)
        else:
            vitals.hear_last_word(Failed(number, code, "x"), now_s + 3)


@pytest.mark.parametrize("code", [None, ErrorCode.DEADLINE_EXCEEDED, REFUSED])
def test_no_client_that_comes_and_goes_hides_a_livelock_from_one_that_waits(
    code: ErrorCode | None,
) -> None:
    vitals = Vitals(0)
    vitals.asked_to_work(0)
    vitals.request_sent(1, 0)
    others_come_and_go(vitals, code, 90)
    signs = vitals.signs(LifePhase.WORKING, 1)
    assert judge(signs, LIMITS, 90).verdict is Verdict.LIVELOCK


@pytest.mark.parametrize("code", [None, ErrorCode.DEADLINE_EXCEEDED])
def test_clients_that_give_up_one_beside_the_other_hide_no_livelock(code: ErrorCode | None) -> None:
    vitals = Vitals(0)
    vitals.asked_to_work(0)
    others_come_and_go(vitals, code, 90)
    vitals.request_sent(1, 89)
    assert judge(vitals.signs(LifePhase.WORKING, 1), LIMITS, 90).verdict is Verdict.LIVELOCK


def test_who_refuses_all_that_comes_is_no_livelock() -> None:
    vitals = Vitals(0)
    vitals.asked_to_work(0)
    others_come_and_go(vitals, REFUSED, 90)
    vitals.request_sent(1, 89)
    vitals.excuse(100, 190)
    assert judge(vitals.signs(LifePhase.WORKING, 1), LIMITS, 191).verdict is Verdict.ALIVE


def test_a_short_prompt_behind_a_long_one_that_was_given_up_has_all_its_time() -> None:
    vitals = Vitals(0)
    vitals.asked_to_work(0)
    vitals.request_sent(1, 0)
    vitals.request_sent(2, 0)
    for number in range(1, 20):
        told = beat(Phase.PREFILL, number, prompt_tokens=90_000, read_tokens=500 * number)
        vitals.hear_beat(told, 5.0 * number)
    vitals.request_cancelled(1, 96)
    vitals.hear_beat(beat(Phase.PREFILL, 21, prompt_tokens=10, read_tokens=9600), 100)
    assert judge(vitals.signs(LifePhase.WORKING, 1), LIMITS, 104).verdict is Verdict.ALIVE


def test_steps_that_bring_nobody_anything_are_no_tokens() -> None:
    vitals = Vitals(0)
    vitals.asked_to_work(0)
    vitals.request_sent(1, 0)
    first_token(vitals, 1, 5, 1)
    for number in range(2, 70):
        vitals.hear_step(Step(number, (Delta(1, 1, (), ""),)), float(number))
        vitals.hear_beat(beat(Phase.DECODE, number), float(number))
    assert judge(vitals.signs(LifePhase.WORKING, 1), LIMITS, 70).verdict is Verdict.LIVELOCK


class Healthy:
    """A worker that does its work, however slowly, and is looked at all the time."""

    def __init__(self) -> None:
        self.vitals, self.now_s, self.phase = Vitals(0), 0.0, LifePhase.STARTING
        self.told = Phase.IMPORTING
        self.step, self.prompt_tokens, self.step_s, self.rss_bytes = 0, 0, 0.0, 0
        self.read_tokens, self.read_tokens_per_s = 0, 0.0
        self.next_beat_s = 0.0

    def go_on(self, duration_s: float, *, beats: bool = True) -> None:
        """Time passes; the supervisor looks before each beat and at the end."""
        until_s = self.now_s + duration_s
        while beats and self.next_beat_s < until_s:
            self.now_s = max(self.now_s, self.next_beat_s)
            self.look()
            message = beat(
                self.told, self.step, rss_bytes=self.rss_bytes, step_s=self.step_s,
                prompt_tokens=self.prompt_tokens, read_tokens=self.read_tokens,
                read_tokens_per_s=self.read_tokens_per_s,
            )  # fmt: skip
            self.vitals.hear_beat(message, self.now_s)
            self.next_beat_s = self.now_s + LIMITS.beat_s
        self.now_s = until_s
        self.look()

    def look(self) -> None:
        judgement = judge(self.vitals.signs(self.phase), LIMITS, self.now_s)
        assert not judgement.is_fatal, (self.now_s, judgement)

    def load(self, import_s: float, part_s: float, growth: float) -> None:
        self.go_on(1.0, beats=False)
        self.vitals.hear_hello(self.now_s)
        self.phase = LifePhase.LOADING
        self.go_on(import_s, beats=False)
        self.next_beat_s, self.told = self.now_s, Phase.LOADING
        self.vitals.hear_loading(Loading(Phase.LOADING, 0.0), self.now_s)
        for part in range(1, 9):
            self.go_on(part_s)
            part_s = min(part_s * growth, 300)
            self.vitals.hear_loading(Loading(Phase.LOADING, part / 8), self.now_s)
        self.vitals.hear_ready(self.now_s)
        self.phase, self.told = LifePhase.SERVING, Phase.IDLE

    def serve(self, request_id: int, prompt_tokens: int, speed: float, step_s: float) -> None:
        self.vitals.asked_to_work(self.now_s)
        self.vitals.request_sent(request_id, self.now_s)
        self.phase, self.told, self.prompt_tokens = LifePhase.WORKING, Phase.PREFILL, prompt_tokens
        left = prompt_tokens
        while left > 0:
            chunk = min(left, 512)
            self.go_on(chunk / speed)
            self.step, left = self.step + 1, left - chunk
            self.read_tokens += chunk
            self.read_tokens_per_s = speed
        first_token(self.vitals, request_id, prompt_tokens, self.now_s)
        self.told, self.prompt_tokens = Phase.DECODE, 0
        for _ in range(10):
            self.go_on(step_s)
            self.step += 1
            self.step_s = max(self.step_s, step_s)
            delta = Delta(request_id, 0, (1,), "x")
            self.vitals.hear_step(Step(self.step, (delta,)), self.now_s)
        self.phase, self.told = LifePhase.SERVING, Phase.IDLE
        self.go_on(7.0)


# Prompt (below `prompt_timeout_s`), and how much slower than usual it is read and answered.
REQUESTS = st.tuples(st.integers(1, 3500), st.floats(1, 3.9), st.floats(1, 19))


@given(
    st.tuples(st.floats(0, 29), st.floats(0.01, 29), st.floats(0.5, 3.9)),
    st.floats(4, 20_000),
    st.floats(0.001, 25),
    st.lists(REQUESTS, max_size=4),
)
def test_a_worker_that_does_its_work_is_never_ended(
    load: tuple[float, float, float],
    tokens_per_s: float,
    step_s: float,
    requests: list[tuple[int, float, float]],
) -> None:
    worker = Healthy()
    worker.load(*load)
    for request_id, (prompt_tokens, reads_late, steps_late) in enumerate(requests):
        longest_s = 59 if request_id == 0 else 599  # nothing is known at first
        took_s = min(step_s * steps_late, longest_s)
        worker.serve(request_id, prompt_tokens, tokens_per_s / reads_late, took_s)
