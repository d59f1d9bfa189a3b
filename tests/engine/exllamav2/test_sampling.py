"""Settings, bias and logprobs: arithmetic on numpy arrays."""

import math
from typing import Any

import numpy as np
import pytest

from rbee.ask import Sampling
from rbee.engine.exllamav2.sampling import Bias, settings, token_logprob


def test_the_defaults_are_neutral() -> None:
    chosen = settings(Sampling())
    assert chosen["temperature"] == 1.0
    assert chosen["token_repetition_penalty"] == 1.0
    assert (chosen["top_k"], chosen["top_p"], chosen["min_p"]) == (0, 1.0, 0.0)


@pytest.mark.parametrize("temperature", [0.0, 0.009])
def test_no_temperature_is_greedy_whatever_else_is_asked_for(temperature: float) -> None:
    chosen = settings(Sampling(temperature=temperature, top_k=40, top_p=0.5, min_p=0.1))
    assert (chosen["top_k"], chosen["temperature"]) == (1, 1.0)
    assert (chosen["top_p"], chosen["min_p"]) == (1.0, 0.0)


def test_what_is_asked_for_is_passed_on() -> None:
    asked = Sampling(temperature=0.7, top_k=40, top_p=0.5, min_p=0.1, repetition_penalty=1.1)
    chosen = settings(asked)
    assert chosen["temperature"] == 0.7
    assert (chosen["top_k"], chosen["top_p"], chosen["min_p"]) == (40, 0.5, 0.1)
    assert chosen["token_repetition_penalty"] == 1.1


def test_penalties_grow_as_openai_defines_them() -> None:
    values = np.zeros(8, np.float32)
    asked = Sampling(frequency_penalty=0.5, presence_penalty=1.0, logit_bias={3: 4.0, 1: -2.0})
    bias = Bias(asked, values, [3, 3, 5])
    assert values.tolist() == [0, -2, 0, 4 - 2 * 0.5 - 1, 0, -1.5, 0, 0]
    bias.note(5)
    assert values[5] == -2.0
    bias.note(0)
    assert values[0] == -1.5


@pytest.mark.parametrize(
    "asked", [{"logit_bias": {1: 1.0}}, {"frequency_penalty": 0.1}, {"presence_penalty": -0.1}]
)
def test_a_bias_is_needed_for_what_changes_logits_by_addition(asked: Any) -> None:
    assert Bias.is_needed(Sampling(**asked))
    assert not Bias.is_needed(Sampling(repetition_penalty=2.0, temperature=0.0))


def test_logprobs_are_the_log_softmax() -> None:
    logits = np.array([1.0, 3.0, 2.0, -1.0], np.float32)
    total = math.log(sum(math.exp(x) for x in logits))
    told = token_logprob(logits, 2, 3, lambda token_id: b"%d" % token_id)
    assert (told.token_id, told.piece) == (2, b"2")
    assert told.logprob == pytest.approx(2 - total, abs=1e-6)
    assert [(i, piece) for i, piece, _ in told.top] == [(1, b"1"), (2, b"2"), (0, b"0")]
    assert [value for *_, value in told.top] == pytest.approx([3 - total, 2 - total, 1 - total])


def test_more_likeliest_than_there_are_tokens_are_all_of_them() -> None:
    told = token_logprob(np.zeros(3, np.float32), 0, 20, lambda _: b"")
    assert [i for i, *_ in told.top] == [0, 1, 2]


def test_large_logits_do_not_overflow() -> None:
    told = token_logprob(np.array([60_000.0, -65_504.0], np.float32), 0, 2, lambda _: b"")
    assert told.logprob == 0.0
    assert math.isfinite(told.top[1][2])
