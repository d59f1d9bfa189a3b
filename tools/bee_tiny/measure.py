"""Asks the shipped model all that its tables hold, in wordings that training uses and others.

Prints one line per kind: what `MODEL_CARD.md` states.
"""

# ruff: noqa: SIM905 - tables of words read better wide

import argparse
from collections.abc import Iterator
from pathlib import Path

import facts
from engine import MODEL_FILE, Bee
from wording import article

Case = tuple[str, str, str]  # kind, question, what the answer must hold


def cases() -> Iterator[Case]:
    yield from _sums()
    yield from _world()
    yield from _animals()
    yield from _letters()
    yield from _rows()


def _sums() -> Iterator[Case]:
    for a in range(21):
        for b in range(21 - a):
            for text in (f"What is {a} plus {b}?", f"{a}+{b}", f"how much is {a} + {b}"):
                yield "addition, sum to 20", text, f"= {a + b}."
    for a in range(21):
        for b in range(a + 1):
            for text in (f"What is {a} minus {b}?", f"{a} - {b} = ?", f"Subtract {b} from {a}"):
                yield "subtraction, from 20", text, f"= {a - b}."
    for a in range(1, 11):
        for b in range(1, 11):
            for text in (f"What is {a} times {b}?", f"{a} x {b}", f"what's {a}*{b}?"):
                yield "products to 10 x 10", text, f"= {a * b}."
            yield "exact quotients", f"What is {a * b} divided by {b}?", f"= {a}."


def _world() -> Iterator[Case]:
    for country, city in facts.CAPITALS.items():
        for text in ("What is the capital of {}?", "capital of {}", "whats the capital city of {}"):
            yield "capitals", text.format(country), city
    for word, other in facts.OPPOSITES.items():
        for text in (
            "What is the opposite of {}?",
            "opposite of {}",
            "Which word is opposite to {}?",
        ):
            yield "opposites", text.format(word), f" {other}."
    for thing, hue in facts.COLOURS.items():
        for text in ("What colour is {}?", "what color is {}", "Tell me which colour {} has."):
            yield "colours", text.format(thing), hue


def _animals() -> Iterator[Case]:
    for animal, noise in facts.SOUNDS.items():
        for text in (
            "What sound does {} make?",
            "what does {} say",
            "What noise do you hear from {}?",
        ):
            yield "animal sounds", text.format(article(animal)), noise
    for animal, baby in facts.YOUNG.items():
        for text in (
            "What is a baby {} called?",
            "what do you call a young {}",
            "A baby {} is a what?",
        ):
            yield "animal young", text.format(animal), baby
    for animal, count in facts.LEGS.items():
        yield "legs", f"How many legs does {article(animal)} have?", f" {count} "


def _letters() -> Iterator[Case]:
    for word in facts.SPELLABLE:
        yield "spelling, known words", f"How do you spell {word}?", "-".join(word.upper()) + "."
    for word in UNSEEN_WORDS:
        yield "spelling, unseen words", f"Spell {word}.", "-".join(word.upper()) + "."


def _rows() -> Iterator[Case]:
    for unit, row in (("day", facts.DAYS), ("month", facts.MONTHS)):
        for name, after in zip(row, row[1:] + row[:1], strict=True):
            yield "days and months", f"What {unit} comes after {name}?", f"{after} comes"
            yield "days and months", f"which {unit} is before {after}", f"{name} comes"
    for end in range(2, 21):
        listed = ", ".join(str(number) for number in range(1, end + 1)) + "."
        for text in (
            f"Count to {end}.",
            f"count from 1 to {end}",
            f"Please count up to {end} for me",
        ):
            yield "counting to 20", text, listed
    for name in facts.NAMES[:30]:
        age = 3 + len(name) * 7 % 60
        text = f"Give me a JSON object with name {name} and age {age}."
        yield "JSON of name and age", text, f'{{"name": "{name}", "age": {age}}}'


UNSEEN_WORDS = (
    "candle ladder pillow marble helmet basket turnip velvet hammock saddle "
    "anchor tunic canyon harbor dessert carpet pirate plaster goblin muffin cactus"
).split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL_FILE)
    parser.add_argument("--misses", type=int, default=4, help="how many to print of each kind")
    arguments = parser.parse_args()
    asked = list(cases())
    answers = Bee(arguments.model).answers((question for _, question, _ in asked), 120)
    tally: dict[str, list[int]] = {}
    for (kind, question, expected), answer in zip(asked, answers, strict=True):
        counts = tally.setdefault(kind, [0, 0])
        counts[1] += 1
        if expected.lower() in answer.lower():
            counts[0] += 1
        elif counts[1] - counts[0] <= arguments.misses:
            print(f"  missed [{kind}] {question!r}: {answer!r}")
    for kind, (right, total) in tally.items():
        print(f"{kind}: {right} of {total} ({right / total:.1%})")


if __name__ == "__main__":
    main()
