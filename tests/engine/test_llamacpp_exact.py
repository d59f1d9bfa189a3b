"""Small models say the same, to the last bit, whatever was and is computed beside it (R20).

Logprobs are compared as numbers that are equal, not near: one bit that differs somewhere becomes
another word at the next place where two words are nearly as likely. bee-tiny's matrices are
computed row by row in any case (`ROW_BY_ROW`); those of the other model are not, and get fillers.
"""

from collections.abc import Iterator

import numpy as np
import pytest

from rbee.ask import Message, Sampling
from rbee.engine.chat import ChatTemplate
from rbee.engine.llamacpp import model as model_file
from rbee.engine.llamacpp.context import FloatArray
from tests.engine.driving import Answer, Driven
from tests.engine.test_llamacpp import BEE_TINY, llamacpp, load
from tests.engine.tiny_gguf import write_tiny_gguf

GREEDY = Sampling(temperature=0, logprobs=0)
SEEDED = Sampling(temperature=0.8, seed=11, logprobs=0)
QUESTIONS = [
    "Tell me a long story about a bee and a bear.",
    "What is 7 plus 5?",
    "Hi",
    "Tell me about bees.",
    "What is the opposite of hot? " * 20,
]


@pytest.fixture(scope="module", params=["bee-tiny", "F16"])
def loaded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Driven]:
    path = BEE_TINY
    if request.param == "F16":
        path = tmp_path_factory.mktemp("model") / "tiny.gguf"
        write_tiny_gguf(path, context_length=2048, has_half_matrices=True)
    driven = load(path)
    model = llamacpp(driven)._model
    assert model is not None
    assert model.is_exact
    assert model.is_row_by_row == (path == BEE_TINY)
    yield driven
    driven.engine.close()


@pytest.fixture
def driven(loaded: Driven) -> Iterator[Driven]:
    forget(loaded)
    yield loaded
    loaded.cancel_all()


def forget(driven: Driven) -> None:
    """Make the cache as that of a worker that was just started."""
    llamacpp(driven)._sequences.forget_kept()  # type: ignore[union-attr]


def prompt(driven: Driven, question: str, *earlier: Message) -> tuple[int, ...]:
    tokenizer = driven.engine.tokenizer
    assert tokenizer.chat_template is not None
    template = ChatTemplate(tokenizer.chat_template, tokenizer.bos_token, tokenizer.eos_token)
    text = template.render((*earlier, Message(role="user", content=question)))
    return tuple(tokenizer.encode(text, special=True, bos=False))


def bits(answer: Answer) -> list[tuple[int, float]]:
    return [(each.token_id, each.logprob) for each in answer.logprobs]


@pytest.mark.parametrize("sampling", [GREEDY, SEEDED], ids=["greedy", "seeded"])
def test_an_answer_is_the_same_wherever_it_goes_on(driven: Driven, sampling: Sampling) -> None:
    asked = prompt(driven, QUESTIONS[0])
    whole = driven.answer(asked, 400, sampling)
    ids = tuple(whole.token_ids)
    assert len(ids) > 300
    for had in (1, 2, 3, 31, 32, 33, 150, len(ids) - 1):
        forget(driven)
        rest = driven.answer((*asked, *ids[:had]), 400 - had, sampling, resumed=had)
        assert bits(rest) == bits(whole)[had:]
        assert rest.finish == whole.finish


def test_an_answer_is_the_same_beside_any_others(driven: Driven) -> None:
    asked = [prompt(driven, question) for question in QUESTIONS]
    alone = [bits(driven.answer(each, 150, GREEDY)) for each in asked]
    for order in ((0, 1, 2, 3, 4), (4, 2, 0), (3, 0), (0, 0, 1)):
        forget(driven)
        jobs: list[int] = []
        for number in order:  # each joins while the others are somewhere in their answers
            jobs.append(driven.start(asked[number], 150, GREEDY))
            driven.step_until_token(jobs[-1], 3)
        together = driven.finish(*jobs)
        assert [bits(answer) for answer in together] == [alone[number] for number in order]


def test_answers_that_go_on_together_are_the_same(driven: Driven) -> None:
    asked = [prompt(driven, question) for question in QUESTIONS]
    whole = [driven.answer(each, 150, SEEDED) for each in asked]
    forget(driven)
    halves = [len(answer.token_ids) // 2 for answer in whole]
    jobs = [
        driven.start((*each, *answer.token_ids[:had]), 150 - had, SEEDED, resumed=had)
        for each, answer, had in zip(asked, whole, halves, strict=True)
    ]
    for rest, answer, had in zip(driven.finish(*jobs), whole, halves, strict=True):
        assert bits(rest) == bits(answer)[had:]


def test_what_is_kept_of_earlier_answers_changes_nothing(driven: Driven) -> None:
    first = driven.answer(prompt(driven, QUESTIONS[3]), 100, GREEDY)
    said = Message(role="assistant", content=first.text.decode(errors="replace"))
    turn = prompt(driven, "Why?", Message(role="user", content=QUESTIONS[3]), said)
    warm = driven.answer(turn, 100, GREEDY)
    again = driven.answer(turn, 100, GREEDY)
    forget(driven)
    cold = driven.answer(turn, 100, GREEDY)
    assert bits(warm) == bits(again) == bits(cold)


def batches(driven: Driven, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Of each decode from now on: tokens, and rows of logits."""
    model = llamacpp(driven)._model
    assert model is not None
    context, seen = model.context, list[tuple[int, int]]()
    decode = context.decode

    def noting() -> int:
        seen.append((context._size, context._rows))
        return decode()

    monkeypatch.setattr(context, "decode", noting)
    return seen


def test_only_a_model_with_kernels_for_several_rows_gets_fillers(
    driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = llamacpp(driven)._model
    assert model is not None
    asked = prompt(driven, "Hi")
    whole = driven.answer(asked, 5, GREEDY).token_ids
    forget(driven)
    seen = batches(driven, monkeypatch)
    driven.answer((*asked, *whole[:3]), 2, GREEDY, resumed=3)
    reading, *decoding = seen
    assert reading == (len(asked), 0)
    said_before, said = ((1, 0), (1, 1)) if model.is_row_by_row else ((2, 2), (2, 2))
    assert decoding == [said_before, said_before, said, said]


def test_shipped_models_rows_have_the_same_bits_in_a_batch_of_any_size() -> None:
    driven = load(BEE_TINY, batch_size=40, context_length=256)
    model = llamacpp(driven)._model
    assert model is not None
    context, start = model.context, list(prompt(driven, QUESTIONS[1]))
    for sequence in range(40):
        context.begin()
        context.add(sequence, start, 0, is_last=True)
        assert context.decode() == 0

    def logits(first: int, count: int) -> bytes:
        """Of the row of sequence `first`, beside rows of others with other tokens."""
        context.begin()
        for sequence in range(first, first + count):
            context.remove(sequence, len(start))
            context.add(sequence, [500 + sequence], len(start), is_last=True)
        assert context.decode() == 0
        row: FloatArray = context.logits()[0]
        return row.tobytes()

    for first in (0, 5):
        alone = logits(first, 1)
        assert np.isfinite(np.frombuffer(alone, np.float32)).all()
        for count in (2, 3, 4, 7, 8, 9, 16, 17, 32, 35):
            assert logits(first, count) == alone
    driven.engine.close()


def test_a_larger_model_goes_on_by_reading_what_was_said_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model_file, "EXACT_BYTES_MAX", 0)
    driven = load(BEE_TINY)
    model = llamacpp(driven)._model
    assert model is not None
    assert not model.is_exact
    asked = prompt(driven, QUESTIONS[1])
    whole = driven.answer(asked, 40, GREEDY).token_ids
    forget(driven)
    steps = driven.steps
    rest = driven.start((*asked, *whole[:5]), 40 - 5, GREEDY, resumed=5)
    driven.step_until_token(rest)
    assert driven.steps == steps + 1
    assert driven.finish(rest)[0].token_ids == whole[5:]
    driven.engine.close()
