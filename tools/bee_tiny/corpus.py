"""The training text: what is mixed, and how much of each."""

# ruff: noqa: E501 - tables of words read better wide

from collections.abc import Iterator
from random import Random
from typing import Final

import people
import questions
import stories
import sums
import texts
from chat import Segment, conversation, plain
from wording import Maker, Pair, asked, capitalised, cased

# Weight by number of samples. Sums and tables are learnt by heart and need many.
MAKERS: Final[tuple[tuple[Maker, float], ...]] = (
    (sums.addition, 6.5), (sums.subtraction, 7.0), (sums.product, 7.0), (sums.division, 3.0),
    (sums.double_or_half, 1.0), (sums.bare_sum, 2.5), (sums.word_problem, 3.2), (sums.comparison, 2.0),
    (sums.parity, 1.2), (sums.neighbour, 1.5), (sums.numeral, 1.0), (sums.counting, 3.0),
    (sums.even_numbers, 0.4), (sums.too_big, 1.6),
    (questions.capital, 4.5), (questions.country_of, 2.0), (questions.opposite, 4.5), (questions.colour, 4.2),
    (questions.mixed_colour, 0.7), (questions.sound, 2.5), (questions.young, 2.3), (questions.legs, 1.6),
    (questions.home, 1.3), (questions.food, 1.0), (questions.kind, 4.0), (questions.members, 2.5),
    (questions.meaning, 2.0), (questions.amount, 1.5), (questions.order, 5.0), (questions.plural, 1.0),
    (questions.past, 1.0), (questions.ability, 0.8),
    (texts.spelling, 11.0), (texts.letter_count, 1.5), (texts.letter_place, 1.2), (texts.alphabet, 1.2),
    (texts.shouted, 0.8), (texts.repeated, 5.0), (texts.json_object, 7.0), (texts.json_list, 1.2),
    (people.talk, 9.0), (people.unknown, 4.0), (people.nonsense, 0.9),
    (stories.story, 3.5), (stories.long_story, 0.8), (stories.poem, 0.7),
)  # fmt: skip
COPYING: Final = frozenset(
    (texts.json_object, texts.json_list, texts.repeated, texts.shouted, people.nonsense)
)
TELLING: Final = (
    questions.capital, questions.opposite, questions.colour, questions.sound, questions.young,
    questions.amount, questions.meaning, questions.kind, sums.addition, sums.product,
)  # fmt: skip


def pair(rng: Random) -> Pair:
    """One question in some guise, with its answer."""
    maker = rng.choices([maker for maker, _ in MAKERS], [weight for _, weight in MAKERS])[0]
    question, answer = maker(rng)
    if maker in COPYING:
        return _as_typed(rng, question), answer
    if maker is people.talk:
        return cased(rng, capitalised(question) if rng.random() < 0.7 else question), answer
    return cased(rng, asked(rng, question)), answer


def _as_typed(rng: Random, question: str) -> str:
    if rng.random() < 0.7:
        question = capitalised(question)
    if rng.random() < 0.2:
        question = question.rstrip(".?")
    return question


def sample(rng: Random) -> Iterator[Segment]:
    """One training text: mostly one question, else a talk, or text without turns."""
    chance = rng.random()
    if chance < 0.80:
        return conversation(rng, [pair(rng)])
    if chance < 0.91:
        return conversation(rng, [pair(rng) for _ in range(rng.randint(2, 5))])
    if chance < 0.915:
        return conversation(rng, [pair(rng) for _ in range(rng.randint(6, 40))])
    if chance < 0.95:
        before = [pair(rng) for _ in range(rng.choice((0, 0, 0, 1, 2)))]
        told, asked_for = people.remembered(rng)
        between = [pair(rng) for _ in range(rng.choice((0, 0, 1, 2)))]
        return conversation(rng, [*before, told, *between, asked_for])
    if chance < 0.975:
        return plain(rng, stories.bare_story(rng))
    return plain(rng, " ".join(rng.choice(TELLING)(rng)[1] for _ in range(rng.randint(1, 6))))
