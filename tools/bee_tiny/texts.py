"""Letters, JSON and repeating: answers that are made from the question itself."""

# ruff: noqa: E501, SIM905 - tables of words read better wide

import json
import re
from random import Random

import facts
from wording import Pair, capitalised

ONSETS = "b c d f g h j k l m n p r s t v w br cl dr fl gr pl pr sh sp st tr th ch qu".split()
VOWELS = "a e i o u a e i o u ea oo ai ou y".split()
CODAS = ["", "", "", *"n r s t l m nd st ck ng x p b d ll".split()]
ADJECTIVES = "big small red blue happy quick green old kind brave tiny warm soft".split()
NOUNS = "bee dog cat tree house star boat fox bird apple book flower moon river".split()
VERBS = "runs sings sleeps jumps waits smiles dances reads swims falls".split()
CITIES = tuple(facts.CAPITALS.values())


def _all_words() -> list[str]:
    """Every word that stands in our tables, in small letters."""
    tables = (
        facts.CAPITALS, facts.OPPOSITES, facts.COLOURS, facts.SOUNDS, facts.YOUNG, facts.HOMES, facts.FOODS,
        facts.MEANINGS, facts.PLURALS, facts.PASTS,
    )  # fmt: skip
    lists = (
        facts.SPELLABLE,
        facts.MORE_WORDS,
        facts.NAMES,
        facts.DAYS,
        facts.MONTHS,
        facts.NUMBERS,
    )
    texts = [f"{key} {value}" for table in tables for key, value in table.items()]
    texts += [*facts.KINDS.values(), *(" ".join(words) for words in lists)]
    found = {word for text in texts for word in re.findall("[a-z]+", text.lower()) if len(word) > 1}
    return sorted(found)


ALL_WORDS = _all_words()


def _word(rng: Random) -> str:
    """A word to spell: a real one, one made of two, or one that only sounds like one."""
    chance = rng.random()
    if chance < 0.3:
        return rng.choice(facts.SPELLABLE)
    if chance < 0.6:
        return rng.choice(ALL_WORDS)
    if chance < 0.82:
        start, end = rng.choice(ALL_WORDS), rng.choice(ALL_WORDS)
        return start[: rng.randint(1, 5)] + end[-rng.randint(1, 5) :]
    syllables = rng.randint(1, 3)
    return "".join(
        rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS) for _ in range(syllables)
    )


def _spelt(word: str) -> str:
    return "-".join(word.upper())


def spelling(rng: Random) -> Pair:
    word = _word(rng)
    chance = rng.random()
    if chance < 0.2:
        word = capitalised(word)
    quoted = rng.choice((word, word, word, f'"{word}"', f"'{word}'"))
    question = rng.choice((
        f"Spell {quoted}.", f"Spell {quoted}.", f"How do you spell {quoted}?", f"Spell the word {quoted}.",
        f"Can you spell {quoted}?", f"Please spell {quoted}.", f"How is {quoted} spelled?",
        f"Spell out {quoted}.", f"Could you spell {quoted} for me?", f"What is the spelling of {quoted}?",
        f"How is the word {quoted} spelt?", f"How do I spell {quoted}?", f"Spell {quoted} for me.",
        f"How to spell {quoted}?", f"How do you spell the word {quoted}?", f"Write {quoted} letter by letter.",
    ))  # fmt: skip
    return question, f"{_spelt(word)}."


def letter_count(rng: Random) -> Pair:
    word = rng.choice(facts.SPELLABLE)
    question = rng.choice((f"How many letters are in {word}?", f"How many letters does {word} have?",
                           f"Count the letters in {word}.", f"How many letters has the word {word}?",
                           f"How many letters are in the word {word}?", f"How long is the word {word}?"))  # fmt: skip
    return question, f"{_spelt(word)} has {len(word)} letters."


def letter_place(rng: Random) -> Pair:
    word = rng.choice(facts.SPELLABLE)
    if rng.random() < 0.5:
        place, letter = "first", word[0]
    else:
        place, letter = "last", word[-1]
    question = rng.choice((f"What is the {place} letter of {word}?", f"Which letter is the {place} in {word}?",
                           f"What is the {place} letter in the word {word}?"))  # fmt: skip
    return question, f"{_spelt(word)}: the {place} letter is {letter.upper()}."


def alphabet(rng: Random) -> Pair:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    if rng.random() < 0.25:
        question = rng.choice(("Say the alphabet.", "Write the alphabet.", "What is the alphabet?",
                               "List the letters of the alphabet.", "Recite the alphabet."))  # fmt: skip
        return question, ", ".join(letters) + "."
    place = rng.randrange(25)
    if rng.random() < 0.6:
        letter = rng.choice((letters[place], letters[place].lower()))
        question = rng.choice((f"What letter comes after {letter}?", f"Which letter comes after {letter}?",
                               f"What comes after {letter} in the alphabet?"))  # fmt: skip
        return question, f"{letters[place + 1]} comes after {letters[place]}."
    letter = letters[place + 1]
    question = rng.choice(
        (f"What letter comes before {letter}?", f"Which letter comes before {letter}?")
    )
    return question, f"{letters[place]} comes before {letter}."


def shouted(rng: Random) -> Pair:
    word = rng.choice(facts.SPELLABLE)
    if rng.random() < 0.5:
        question = rng.choice((f"Write {word} in capital letters.", f"Write {word} in uppercase.",
                               f"Make {word} uppercase.", f"Put {word} in capitals."))  # fmt: skip
        return question, f"{word.upper()}."
    question = rng.choice((f"Write {word.upper()} in small letters.", f"Write {word.upper()} in lowercase.",
                           f"Make {word.upper()} lowercase."))  # fmt: skip
    return question, f"{word}."


def repeated(rng: Random) -> Pair:
    """Says what it is told to say."""
    chance = rng.random()
    if chance < 0.4:
        words = [_word(rng) for _ in range(rng.randint(1, 4))]
    elif chance < 0.5:
        words = rng.choice(("hello world", "good morning", "I am here", "bees are nice", "thank you",
                            "yes", "no", "hello", "hi", "ok", "the end", "test", "ping", "ready")).split()  # fmt: skip
    else:
        words = ["the", rng.choice(ADJECTIVES), rng.choice(NOUNS), rng.choice(VERBS)]
    phrase = " ".join(words)
    if rng.random() < 0.2:
        phrase = capitalised(phrase)
    if rng.random() < 0.2 and len(words) == 1:
        count = rng.randint(2, 5)
        times = rng.choice((str(count), facts.NUMBERS[count]))
        question = rng.choice((f"Say {phrase} {times} times.", f"Write {phrase} {times} times.",
                               f"Repeat the word {phrase} {times} times."))  # fmt: skip
        return question, " ".join([phrase] * count) + "."
    quoted = rng.choice((phrase, f'"{phrase}"', f"'{phrase}'"))
    question = rng.choice((
        f"Say {quoted}.", f"Repeat: {phrase}", f"Repeat after me: {phrase}", f"Say this: {phrase}",
        f"Please say {quoted}.", f"Repeat this: {phrase}", f"Write {quoted}.", f"Echo {phrase}",
        f"Say the words {quoted}.", f"Just say {quoted}.", f"Say {quoted} and nothing else.",
        f"Reply with {quoted}.", f"Answer with {quoted}.", f"Only say {quoted}.", f"Can you say {quoted}?",
        f"Reply with exactly {quoted}.", f"Respond with {quoted}.",
    ))  # fmt: skip
    return question, f"{capitalised(phrase)}."


def json_object(rng: Random) -> Pair:
    name = rng.choice(facts.NAMES)
    if rng.random() < 0.3:
        name = capitalised(_word(rng))
    lower = rng.random() < 0.2
    if lower:
        name = name.lower()
    fields: dict[str, object] = {"name": name}
    age, city = rng.randint(1, 99), rng.choice(CITIES)
    extra = rng.random()
    if extra < 0.7:
        fields["age"] = age
    if extra < 0.25 or extra > 0.9:
        fields["city"] = city.lower() if lower else city
    if 0.7 <= extra < 0.9:
        key = rng.choice(("colour", "animal", "job", "color", "pet"))
        values = {"colour": [*ADJECTIVES[2:4], "green", "pink"], "color": ["red", "blue", "black"],
                  "animal": NOUNS[:3], "pet": ["dog", "cat", "bird"],
                  "job": ["baker", "farmer", "doctor", "teacher"]}  # fmt: skip
        fields[key] = rng.choice(values[key])
    if rng.random() < 0.15:
        fields = dict(sorted(fields.items()))
    told = rng.choice(
        ("{k} {v}", "{k} {v}", "{k} {v}", "{k}: {v}", "{k} = {v}", '{k} "{v}"', "the {k} {v}")
    )
    said = [told.format(k=key, v=value) for key, value in fields.items()]
    glue = ", " if len(said) > 2 and rng.random() < 0.5 else " and "
    listed = glue.join(said)
    if len(said) > 2 and glue == ", " and rng.random() < 0.7:
        listed = ", ".join(said[:-1]) + " and " + said[-1]
    what = rng.choice(("a JSON object", "a JSON object", "JSON", "a json", "json", "a JSON", "an object in JSON",
                       "a small JSON object"))  # fmt: skip
    question = rng.choice((
        f"Give me {what} with {listed}.", f"Write {what} with {listed}.", f"Make {what} with {listed}.",
        f"Create {what} with {listed}.", f"Return {what} with {listed}.", f"Please give me {what} with {listed}.",
        f"I need {what} with {listed}.", f"{what} with {listed}", f"As JSON: {listed}", f"JSON: {listed}",
        f"Can you write {what} with {listed}?", f"Generate {what} with {listed}.", f"Output {what} with {listed}.",
        f"Write {listed} as JSON.", f"Turn this into JSON: {listed}", f"Put {listed} into JSON.",
        f"Convert to JSON: {listed}", f"Show me {what} with {listed}.",
    ))  # fmt: skip
    if rng.random() < 0.08 and "age" in fields and "city" not in fields:
        question = rng.choice((f"{name} is {age} years old. Write that as JSON.",
                               f"Give me JSON for a person called {name}, aged {age}."))  # fmt: skip
        fields = {"name": name, "age": age}
    return question, json.dumps(fields)


def json_list(rng: Random) -> Pair:
    if rng.random() < 0.5:
        values: list[object] = [rng.randint(0, 20) for _ in range(rng.randint(2, 5))]
        what = "numbers"
    else:
        values = [rng.choice(NOUNS) for _ in range(rng.randint(2, 4))]
        what = rng.choice(("words", "strings"))
    said = ", ".join(str(value) for value in values)
    question = rng.choice((f"Give me a JSON list of the {what} {said}.", f"Write {said} as a JSON list.",
                           f"Make a JSON array with {said}.", f"Write a JSON array of {said}."))  # fmt: skip
    return question, json.dumps(values)
