"""How one token is drawn from one row of logits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.ask import Sampling
from rbee.engine.engine import Job
from rbee.engine.llamacpp.sampling import Sampler, draw, nucleus, pick, token_logprob
from rbee.errors import ErrorCode, RequestError
from tests.engine.plain_tokenizer import PlainTokenizer

ROW = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))


def chosen(sampling: Sampling, count: int = 4000) -> list[float]:
    """How often each token of `ROW` is drawn."""
    draws = [pick(ROW, sampling, draw(11, index)) for index in range(count)]
    return [draws.count(token_id) / count for token_id in range(len(ROW))]


def sampler(sampling: Sampling, prompt: tuple[int, ...] = (0,), resumed: int = 0) -> Sampler:
    return Sampler(Job(1, prompt, 10, sampling, resumed=resumed), None)


@given(st.integers(0, 2**63 - 1), st.integers(0, 1 << 20))
def test_draws_are_in_the_unit_interval_and_repeat(seed: int, index: int) -> None:
    assert 0 <= draw(seed, index) < 1
    assert draw(seed, index) == draw(seed, index)


def test_draws_are_even_over_indices_and_over_seeds() -> None:
    for draws in ([draw(0, i) for i in range(10_000)], [draw(s, 0) for s in range(10_000)]):
        tenths, _ = np.histogram(draws, 10, (0, 1))
        assert abs(tenths - 1000).max() < 150  # five standard deviations
        assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 0.05


def test_plain_draws_follow_the_probabilities() -> None:
    assert chosen(Sampling()) == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.03)


def test_temperature_sharpens() -> None:
    expected = np.array([0.5, 0.3, 0.15, 0.05]) ** 2
    expected /= expected.sum()
    assert chosen(Sampling(temperature=0.5)) == pytest.approx(expected.tolist(), abs=0.03)


def test_top_k_keeps_the_likeliest() -> None:
    assert chosen(Sampling(top_k=2)) == pytest.approx([0.625, 0.375, 0, 0], abs=0.03)


def test_top_p_keeps_the_token_that_crosses_it() -> None:
    assert chosen(Sampling(top_p=0.6)) == pytest.approx([0.625, 0.375, 0, 0], abs=0.03)
    assert chosen(Sampling(top_p=0.01)) == [1, 0, 0, 0]


def test_min_p_is_a_part_of_the_likeliest() -> None:
    kept = [0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0]
    assert chosen(Sampling(min_p=0.2)) == pytest.approx(kept, abs=0.03)


def test_last_token_with_weight_is_drawn_at_the_very_end() -> None:
    row = np.array([0.0, 0.0, -np.inf, -np.inf], np.float32)
    assert pick(row, Sampling(), 1 - 2**-53) == 1
    assert pick(row, Sampling(), 0.0) == 0


@given(
    st.lists(st.floats(0, 1, width=32), min_size=2, max_size=60).filter(lambda w: sum(w) > 0.1),
    st.floats(0.01, 0.99),
)
def test_nucleus_is_the_smallest_set_that_reaches_top_p(weights: list[float], top_p: float) -> None:
    array = np.array(weights, np.float32)
    kept = nucleus(array, top_p)
    total = float(array.sum(dtype=np.float64))
    inside = float(array[kept].sum(dtype=np.float64))
    assert inside >= top_p * total - 1e-6
    assert inside - float(array[kept[-1]]) < top_p * total + 1e-6
    assert array[kept].min() >= np.delete(array, kept).max(initial=0)


def test_greedy_takes_the_likeliest_and_leaves_the_row_alone() -> None:
    row = ROW.copy()
    assert sampler(Sampling(temperature=0, logit_bias={1: 1.0})).choose(row) == 1
    assert sampler(Sampling(temperature=0)).choose(row) == 0
    assert (row == ROW).all()


def test_bias_of_minus_hundred_bans_a_token() -> None:
    one = sampler(Sampling(seed=1, logit_bias={0: -100.0}))
    for _ in range(200):
        token_id = one.choose(ROW)
        one.accept(token_id)
        assert token_id != 0


def test_presence_penalty_counts_once_and_frequency_each_time() -> None:
    flat = np.array([1.0, 0.0, 0.0], np.float32)
    presence = sampler(Sampling(temperature=0, presence_penalty=0.9))
    frequency = sampler(Sampling(temperature=0, frequency_penalty=0.6))
    picked: dict[str, list[int]] = {"presence": [], "frequency": []}
    for _ in range(3):
        for name, one in (("presence", presence), ("frequency", frequency)):
            picked[name].append(one.choose(flat))
            one.accept(picked[name][-1])
    assert picked == {"presence": [0, 0, 0], "frequency": [0, 0, 1]}


def test_penalties_of_openai_look_at_the_answer_alone() -> None:
    flat = np.array([1.0, 0.5], np.float32)
    sampling = Sampling(temperature=0, presence_penalty=2, frequency_penalty=2)
    assert sampler(sampling, prompt=(0, 0, 0)).choose(flat) == 0
    assert sampler(sampling, prompt=(1, 0), resumed=1).choose(flat) == 1


def test_repetition_penalty_looks_at_prompt_and_answer() -> None:
    flat = np.array([1.0, 0.8, -1.0], np.float32)
    one = sampler(Sampling(temperature=0, repetition_penalty=1.5), prompt=(0,))
    assert one.choose(flat) == 1
    one.accept(1)
    assert one.choose(flat) == 0


def test_resumed_job_draws_what_the_whole_one_would() -> None:
    whole = sampler(Sampling(seed=5))
    ids = []
    for _ in range(20):
        ids.append(whole.choose(ROW))
        whole.accept(ids[-1])
    rest = sampler(Sampling(seed=5), prompt=(0, *ids[:7]), resumed=7)
    for expected in ids[7:]:
        assert rest.choose(ROW) == expected
        rest.accept(expected)


def test_jobs_without_a_seed_differ() -> None:
    firsts = set()
    for _ in range(40):
        one = sampler(Sampling())
        for _ in range(5):
            one.accept(one.choose(ROW))
        firsts.add(draw(one._seed, 0))
    assert len(firsts) == 40


@pytest.mark.parametrize("sampling", [Sampling(temperature=0), Sampling(seed=1)])
def test_row_that_is_no_number_fails_the_job(sampling: Sampling) -> None:
    for bad in (np.nan, -np.inf):
        with pytest.raises(RequestError) as failure:
            sampler(sampling).choose(np.full(4, bad, np.float32))
        assert failure.value.code is ErrorCode.ENGINE_FAILED


def test_logprobs_are_those_of_the_raw_logits() -> None:
    entry = token_logprob(ROW + 3, 2, 3, PlainTokenizer())
    assert entry.token_id == 2
    assert entry.logprob == pytest.approx(np.log(0.15), abs=1e-5)
    assert [token_id for token_id, _, _ in entry.top] == [0, 1, 2]
    assert [p for _, _, p in entry.top] == pytest.approx(np.log([0.5, 0.3, 0.15]), abs=1e-5)


def test_impossible_token_has_a_logprob_that_json_can_say() -> None:
    row = np.array([0.0, -np.inf], np.float32)
    assert token_logprob(row, 1, 0, PlainTokenizer()).logprob == -9999.0
