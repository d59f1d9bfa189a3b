"""The synthetic engine's numbers and its pace. What every engine promises: `test_contract.py`."""

import itertools
import math
from typing import Any

import pytest

from rbee.ask import Message, Sampling
from rbee.config import ModelConfig, SyntheticConfig
from rbee.engine.chat import ChatTemplate
from rbee.engine.engine import EngineInfo, Job, LoadSpec, Sampled
from rbee.engine.synthetic import CATCH_UP_S, STEP_WAIT_S_MAX, SyntheticEngine
from rbee.errors import ErrorCode, RequestError
from rbee.wire import Phase


class FakeTime:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.longest_sleep_s = 0.0

    def clock(self) -> float:
        return self.now_s

    def sleep(self, duration_s: float) -> None:
        self.now_s += duration_s
        self.longest_sleep_s = max(self.longest_sleep_s, duration_s)


class Stand:
    """A loaded engine on fake time, and when its tokens came."""

    def __init__(self, *, batch_size: int | None = None, **settings: Any) -> None:
        self.time = FakeTime()
        self.progress: list[tuple[float, Phase, float]] = []
        self.engine = SyntheticEngine(clock=self.time.clock, sleep=self.time.sleep)
        self.pieces: dict[int, list[bytes]] = {}
        self.came_s: dict[int, list[float]] = {}
        self.finish: dict[int, str] = {}
        self.info = self._load(batch_size, SyntheticConfig(**settings))

    def _load(self, batch_size: int | None, config: SyntheticConfig) -> EngineInfo:
        model = ModelConfig(ref="synthetic", batch_size=batch_size, synthetic=config)

        def tell(phase: Phase, fraction: float) -> None:
            self.progress.append((self.time.now_s, phase, fraction))

        return self.engine.load(LoadSpec(model, None, threads=1), tell)

    def enqueue(
        self,
        job_id: int,
        prompt: str = "hello",
        tokens_max: int = 8,
        *,
        resumed: int = 0,
        **sampling: Any,
    ) -> None:
        ids = self.engine.tokenizer.encode(prompt, special=False, bos=True)
        answer = [1000 + number for number in range(resumed)]
        job = Job(job_id, (*ids, *answer), tokens_max, Sampling(**sampling), resumed=resumed)
        self.engine.enqueue(job)
        self.pieces[job_id], self.came_s[job_id] = [], []

    def step(self) -> list[Sampled]:
        brought = self.engine.step()
        for sampled in brought:
            assert isinstance(sampled, Sampled)
            assert len(sampled.pieces) == len(sampled.token_ids) <= 1
            self.pieces[sampled.job_id] += sampled.pieces
            self.came_s[sampled.job_id] += [self.time.now_s] * len(sampled.pieces)
            if sampled.finish is not None:
                self.finish[sampled.job_id] = sampled.finish
        return [sampled for sampled in brought if isinstance(sampled, Sampled)]

    def run(self) -> None:
        for _ in range(100_000):
            if self.engine.phase is Phase.IDLE:
                return
            self.step()
        raise AssertionError("jobs never ended")

    def text(self, job_id: int) -> bytes:
        return b"".join(self.pieces[job_id])


# --- numbers


def test_answer_counts_from_zero_and_ends_by_length() -> None:
    stand = Stand()
    stand.enqueue(1, tokens_max=5)
    stand.run()
    assert stand.text(1) == b"0 1 2 3 4 "
    assert stand.finish == {1: "length"}


def test_prompt_may_ask_for_a_number_of_tokens_and_the_last_wish_counts() -> None:
    stand = Stand()
    stand.enqueue(1, "user: [tokens=9] assistant: 0 1 user: [tokens=3]", tokens_max=100)
    stand.enqueue(2, "[tokens=0]")
    stand.enqueue(3, "[tokens=8]", tokens_max=8)  # both at once: length is there first
    stand.run()
    assert [stand.text(i) for i in (1, 2, 3)] == [b"0 1 2 ", b"", b"0 1 2 3 4 5 6 7 "]
    assert stand.finish == {1: "stop", 2: "stop", 3: "length"}


def test_resumed_answer_goes_on_where_it_was() -> None:
    stand = Stand()
    stand.enqueue(1, "[tokens=6]", tokens_max=50, resumed=4)
    stand.enqueue(2, "[tokens=6]", tokens_max=50, resumed=6)  # all was delivered but the end
    stand.enqueue(3, "x", tokens_max=2, resumed=7)
    stand.run()
    assert [stand.text(i) for i in (1, 2, 3)] == [b"4 5 ", b"", b"7 8 "]
    assert stand.finish == {1: "stop", 2: "stop", 3: "length"}


def test_answer_longer_than_what_is_made_ahead_goes_on_counting() -> None:
    stand = Stand(context_length=1 << 17, tokens_per_s=1e6)
    stand.enqueue(1, tokens_max=66_000)
    stand.run()
    assert stand.text(1) == b"".join(b"%d " % number for number in range(66_000))


@pytest.mark.parametrize("count", [0, 1, 5, 20])
def test_logprobs_are_those_of_a_distribution(count: int) -> None:
    stand = Stand()
    stand.enqueue(1, tokens_max=2, logprobs=count)
    for sampled in (stand.step(), stand.step()):
        (logprob,) = sampled[0].logprobs
        assert logprob.token_id == sampled[0].token_ids[0]
        assert logprob.piece == sampled[0].pieces[0]
        assert len(logprob.top) == count
        assert sum(math.exp(each[2]) for each in logprob.top) < 1
        if count:
            assert logprob.top[0] == (logprob.token_id, logprob.piece, logprob.logprob)
    assert stand.finish == {1: "length"}


def test_tokenizer_takes_back_what_it_gave() -> None:
    tokenizer = Stand().engine.tokenizer
    text = "café <|end|>"
    plain = tokenizer.encode(text, special=False, bos=True)
    assert b"".join(map(tokenizer.piece, plain)) == text.encode()
    special = tokenizer.encode(text + "<|end|>x", special=True, bos=True)
    assert special[-3:] == [256, 256, ord("x")]
    assert b"".join(map(tokenizer.piece, special)) == "café x".encode()
    assert tokenizer.piece(1042) == b"42 "


def test_chat_template_is_rendered() -> None:
    tokenizer = Stand().engine.tokenizer
    assert tokenizer.chat_template is not None
    template = ChatTemplate(tokenizer.chat_template, tokenizer.bos_token, tokenizer.eos_token)
    messages = [Message(role="system", content="Count."), Message(role="user", content="Go")]
    assert template.render(messages) == "system: Count.\nuser: Go\nassistant: "


# --- refusals


def test_what_it_cannot_do_is_refused_and_not_taken() -> None:
    stand = Stand()
    with pytest.raises(RequestError) as caught:
        stand.enqueue(1, logit_bias={5: 1.0})
    assert (caught.value.code, caught.value.param) == (
        ErrorCode.UNSUPPORTED_PARAMETER,
        "logit_bias",
    )
    with pytest.raises(RequestError) as caught:
        stand.engine.enqueue(Job(1, (1,), 1, Sampling(), json_schema="{}"))
    assert caught.value.param == "response_format"
    for outside in (-1, stand.engine.tokenizer.vocabulary_size):
        with pytest.raises(RequestError) as caught:
            stand.engine.enqueue(Job(1, (1, outside), 1, Sampling()))
        assert caught.value.param == "prompt"
    assert stand.engine.phase is Phase.IDLE


# --- pace


def test_all_jobs_tick_together_at_the_pace_asked_for() -> None:
    stand = Stand(tokens_per_s=100)
    stand.enqueue(1, tokens_max=50)
    stand.enqueue(2, tokens_max=50)
    stand.run()
    assert stand.came_s[1] == stand.came_s[2]
    assert stand.came_s[1] == pytest.approx([number / 100 for number in range(50)])


def test_job_that_joins_has_its_first_token_at_once_and_the_others_on_the_same_ticks() -> None:
    stand = Stand(tokens_per_s=100)
    stand.enqueue(1, tokens_max=10)
    for _ in range(3):
        stand.step()
    stand.time.now_s += 0.004
    stand.enqueue(2, tokens_max=3)
    stand.run()
    assert stand.came_s[2] == [pytest.approx(0.024), *stand.came_s[1][3:5]]


def test_first_token_waits_and_the_phase_says_why() -> None:
    stand = Stand(tokens_per_s=100, first_token_s=0.21)
    stand.enqueue(1, tokens_max=3)
    phases = []
    while not stand.pieces[1]:
        phases.append(stand.engine.phase)
        stand.step()
    assert set(phases) == {Phase.PREFILL}
    assert stand.engine.phase is Phase.DECODE
    assert stand.came_s[1] == pytest.approx([0.21])
    assert stand.time.longest_sleep_s <= STEP_WAIT_S_MAX


def test_job_in_prefill_does_not_hold_up_the_others() -> None:
    stand = Stand(tokens_per_s=100, first_token_s=0.1)
    stand.enqueue(1, tokens_max=30)
    while not stand.pieces[1]:
        stand.step()
    stand.enqueue(2, tokens_max=5)
    joined_s = stand.time.now_s
    stand.run()
    assert stand.came_s[1] == pytest.approx([0.1 + number / 100 for number in range(30)])
    assert stand.came_s[2][0] == pytest.approx(joined_s + 0.1)


def test_step_returns_soon_at_a_slow_pace_so_that_a_cancel_is_seen() -> None:
    stand = Stand(tokens_per_s=0.5)
    stand.enqueue(1, tokens_max=3)
    stand.run()
    assert stand.came_s[1] == pytest.approx([0, 2, 4])
    assert stand.time.longest_sleep_s <= STEP_WAIT_S_MAX


def test_small_delay_is_made_good_one_token_a_step() -> None:
    stand = Stand(tokens_per_s=100)
    stand.enqueue(1, tokens_max=40)
    stand.step()
    stand.time.now_s += 0.105  # ten ticks are missed
    stand.run()
    assert stand.came_s[1][1:11] == [pytest.approx(0.105)] * 10
    assert stand.came_s[1][11:] == pytest.approx([number / 100 for number in range(11, 40)])


def test_long_delay_is_made_good_in_part() -> None:
    stand = Stand(tokens_per_s=100)
    stand.enqueue(1, tokens_max=200)
    stand.step()
    stand.time.now_s += 60.0
    stand.run()
    at_once = [s for s in stand.came_s[1] if s == 60.0]
    assert len(at_once) == pytest.approx(100 * CATCH_UP_S, abs=2)


def test_idle_time_gives_no_tokens_afterwards() -> None:
    stand = Stand(tokens_per_s=100)
    stand.enqueue(1, tokens_max=2)
    stand.run()
    stand.time.now_s = 10.0
    stand.enqueue(2, tokens_max=3)
    stand.run()
    assert stand.came_s[2] == pytest.approx([10.0, 10.01, 10.02])


def test_job_over_the_batch_size_waits_for_a_place() -> None:
    stand = Stand(tokens_per_s=100, batch_size=2)
    for job_id in (1, 2, 3):
        stand.enqueue(job_id, tokens_max=4)
    stand.run()
    assert stand.came_s[3][0] >= stand.came_s[1][-1]
    assert stand.text(3) == b"0 1 2 3 "


# --- loading


def test_load_takes_its_time_and_tells_its_progress() -> None:
    stand = Stand(load_s=1.0)
    times, phases, fractions = zip(*stand.progress, strict=True)
    assert stand.time.now_s == pytest.approx(1.0)
    assert max(b - a for a, b in itertools.pairwise(times)) <= STEP_WAIT_S_MAX + 1e-9
    assert set(phases) == {Phase.LOADING}
    assert list(fractions) == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)


def test_load_tells_what_it_is() -> None:
    info = Stand(tokens_per_s=20).info
    assert (info.engine, info.device, info.context_length) == ("synthetic", "none", 4096)
    assert info.batch_size == 1024
    assert info.detail["tokens_per_s"] == "20"
