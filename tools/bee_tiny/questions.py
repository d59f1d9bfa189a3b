"""Questions about the world: each function makes one question with its answer."""

# ruff: noqa: E501, ISC004 - tables of words read better wide

from random import Random

import facts
from wording import Pair, article, capitalised


def capital(rng: Random) -> Pair:
    if rng.random() < 0.15:
        name = rng.choice(list(facts.COUNTRY_NICKNAMES))
        country = facts.COUNTRY_NICKNAMES[name]
    else:
        name = country = rng.choice(list(facts.CAPITALS))
    city = facts.CAPITALS[country]
    question = rng.choice((
        f"What is the capital of {name}?", f"What is the capital city of {name}?",
        f"Capital of {name}?", f"Name the capital of {name}.", f"Which city is the capital of {name}?",
        f"What city is the capital of {name}?", f"Tell me the capital of {name}.",
        f"The capital of {name}?", f"Do you know the capital of {name}?", f"{name}: capital?",
        f"Can you tell me the capital of {name}?", f"{name}'s capital?",
        f"What is {name}'s capital?", f"What is the name of the capital of {name}?",
        f"Which city is {name}'s capital?", f"Where is the capital of {name}?",
    ))  # fmt: skip
    return question, f"The capital of {country} is {city}."


def country_of(rng: Random) -> Pair:
    country = rng.choice([c for c in facts.CAPITALS if c != "England"])
    city = facts.CAPITALS[country]
    question = rng.choice((
        f"{city} is the capital of which country?", f"Which country has the capital {city}?",
        f"Of which country is {city} the capital?", f"In which country is {city}?",
        f"Where is {city}?", f"What country is {city} in?", f"What country is {city} the capital of?",
    ))  # fmt: skip
    return question, f"{city} is the capital of {country}."


def opposite(rng: Random) -> Pair:
    word = rng.choice(list(facts.OPPOSITES))
    other = facts.OPPOSITES[word]
    if word in facts.TWO_WAY and other not in facts.OPPOSITES and rng.random() < 0.5:
        word, other = other, word
    quoted = rng.choice((word, word, word, f'"{word}"', f"'{word}'"))
    question = rng.choice((
        f"What is the opposite of {quoted}?", f"Opposite of {quoted}?", f"The opposite of {quoted}?",
        f"What is the opposite of the word {quoted}?", f"Tell me the opposite of {quoted}.",
        f"Name the opposite of {quoted}.", f"Give me the opposite of {quoted}.",
        f"What word is the opposite of {quoted}?", f"Which word means the opposite of {quoted}?",
        f"What is an antonym of {quoted}?", f"What would be the opposite of {quoted}?",
            f"What is the contrary of {quoted}?", f"Antonym of {quoted}?", f"{quoted}: opposite?",
        f"If it is not {word}, what is it?", f"Do you know the opposite of {quoted}?",
        f"Can you tell me the opposite of {quoted}?", f"What is the antonym of {quoted}?",
    ))  # fmt: skip
    return question, f"The opposite of {word} is {other}."


def colour(rng: Random) -> Pair:
    thing = rng.choice(list(facts.COLOURS))
    hue = facts.COLOURS[thing]
    bare = thing.removeprefix("a ").removeprefix("an ").removeprefix("the ")
    many = bare if thing == bare else f"{bare}s"
    spelt = rng.choice(("colour", "color", "colour"))
    verb = rng.choice(("is", "has")) if spelt == "colour" else "is"
    choices = [
        f"What {spelt} is {thing}?", f"What is the {spelt} of {thing}?", f"Which {spelt} is {thing}?",
        f"What {spelt} does {thing} have?", f"The {spelt} of {thing}?", f"{thing}: what {spelt}?",
        f"Tell me the {spelt} of {thing}.", f"Which {spelt} {verb} {thing}?", f"Name the {spelt} of {thing}.",
        f"What {spelt} would you say {thing} is?", f"Do you know the {spelt} of {thing}?",
        f"Can you tell me what {spelt} {thing} is?", f"What {spelt} is {thing} usually?",
    ]  # fmt: skip
    if thing.startswith(("a ", "an ")) and not bare.endswith(("y", "o", "h", "s", "x", "f")):
        choices += [f"What {spelt} are {many}?", f"Which {spelt} are {many}?",
                    f"What {spelt} do {many} have?"]  # fmt: skip
    if thing.startswith("the "):
        choices += [f"What {spelt} is {bare}?"]
    return rng.choice(choices), f"{capitalised(thing)} is {hue}."


def mixed_colour(rng: Random) -> Pair:
    (one, two), result = rng.choice(list(facts.MIXES.items()))
    if rng.random() < 0.5:
        one, two = two, one
    question = rng.choice((
        f"What do you get when you mix {one} and {two}?", f"Mix {one} and {two}.",
        f"What colour do {one} and {two} make?", f"{one} and {two} make which colour?",
        f"What is {one} mixed with {two}?", f"Which color do you get from {one} and {two}?",
    ))  # fmt: skip
    return question, f"{capitalised(one)} and {two} make {result}."


def sound(rng: Random) -> Pair:
    animal = rng.choice(list(facts.SOUNDS))
    noise, an = facts.SOUNDS[animal], article(animal)
    if rng.random() < 0.15 and list(facts.SOUNDS.values()).count(noise) == 1:
        question = rng.choice((f"Which animal says {noise}?", f"What animal says {noise}?",
                               f"Who says {noise}?"))  # fmt: skip
    else:
        question = rng.choice((
            f"What sound does {an} make?", f"What does {an} say?", f"What sound does the {animal} make?",
            f"What noise does {an} make?", f"How does {an} sound?", f"Which sound does {an} make?",
            f"What does the {animal} say?", f"How does {an} go?", f"Make the sound of {an}.",
            f"Tell me the sound of {an}.", f"What is the sound of {an}?",
        ))  # fmt: skip
    return question, f"{capitalised(an)} says {noise}."


def young(rng: Random) -> Pair:
    animal = rng.choice(list(facts.YOUNG))
    baby, an = facts.YOUNG[animal], article(animal)
    if rng.random() < 0.15 and list(facts.YOUNG.values()).count(baby) == 1:
        question = rng.choice((f"What does {article(baby)} grow into?", f"What is {article(baby)}?",
                               f"{capitalised(article(baby))} is the young of which animal?"))  # fmt: skip
    else:
        question = rng.choice((
            f"What is a baby {animal} called?", f"What do you call a baby {animal}?",
            f"What is a young {animal} called?", f"What do we call a young {animal}?",
            f"What is the young of {an} called?", f"What is the baby of {an} called?",
            f"Name for a baby {animal}?", f"What is the name of a baby {animal}?",
            f"How do you call the young of {an}?", f"What is a baby {animal}?",
            f"What do you call a young {animal}?", f"What is the word for a baby {animal}?",
        ))  # fmt: skip
    return question, f"A young {animal} is called {article(baby)}."


def legs(rng: Random) -> Pair:
    animal = rng.choice(list(facts.LEGS))
    count, an = facts.LEGS[animal], article(animal)
    question = rng.choice((
        f"How many legs does {an} have?", f"How many legs has {an}?", f"{capitalised(an)} has how many legs?",
        f"Number of legs of {an}?", f"How many legs does the {animal} have?",
        f"How many legs do {animal}s have?", f"Tell me how many legs {an} has.",
    ))  # fmt: skip
    return question, f"{capitalised(an)} has {count} legs."


def home(rng: Random) -> Pair:
    animal = rng.choice(list(facts.HOMES))
    an, place = article(animal), facts.HOMES[animal]
    question = rng.choice((
        f"Where does {an} live?", f"What is the home of {an}?", f"Where do {animal}s live?",
        f"In what does {an} live?", f"What is the home of {an} called?", f"Where does the {animal} live?",
    ))  # fmt: skip
    return question, f"{capitalised(an)} lives in {place}."


def food(rng: Random) -> Pair:
    animal = rng.choice(list(facts.FOODS))
    an, meal = article(animal), facts.FOODS[animal]
    question = rng.choice((
        f"What does {an} eat?", f"What do {animal}s eat?", f"What does {an} like to eat?",
        f"What is the food of {an}?", f"What does the {animal} eat?",
    ))  # fmt: skip
    return question, f"{capitalised(an)} eats {meal}."


def kind(rng: Random) -> Pair:
    group = rng.choice(list(facts.KINDS))
    thing = rng.choice(facts.KINDS[group].split())
    an = article(thing)
    if rng.random() < 0.5:
        question = rng.choice((f"What is {an}?", f"What kind of thing is {an}?", f"What is {an}? "
                               "Tell me.", f"Tell me what {an} is.", f"Explain what {an} is."))  # fmt: skip
        if thing in facts.MEANINGS:
            return question, facts.MEANINGS[thing]
        return question, f"{capitalised(an)} is {article(group)}."
    other = group if rng.random() < 0.45 else rng.choice(list(facts.KINDS))
    question = f"Is {an} {article(other)}?"
    is_so = thing in facts.KINDS[other].split()
    is_so = is_so or (other == "animal" and group in ("bird", "insect", "fish"))
    # What it is comes first: so the answer need not be known before the fact.
    return question, f"{capitalised(an)} is {article(group)}, so {'yes' if is_so else 'no'}."


def members(rng: Random) -> Pair:
    group = rng.choice([g for g in facts.KINDS if g != "fish"])
    things = facts.KINDS[group].split()
    count = rng.randint(1, min(5, len(things)))
    many = {"city": "cities", "country": "countries"}.get(group, f"{group}s")
    number = rng.choice((str(count), facts.NUMBERS[count]))
    noun = many if count > 1 else group
    spoken = noun.replace("colour", rng.choice(("colour", "color")))
    question = rng.choice((
        f"Name {number} {spoken}.", f"List {number} {spoken}.", f"Tell me {number} {spoken}.",
        f"Give me {number} {spoken}.", f"Can you name {number} {spoken}?", f"Write {number} {spoken}.",
    ))  # fmt: skip
    if count == 1:
        question = rng.choice((f"Name {article(spoken)}.", f"Give me an example of {article(spoken)}.",
                               f"Tell me {article(spoken)}.", f"Name one {spoken}."))  # fmt: skip
    return question, capitalised(", ".join(things[:count])) + "."


def meaning(rng: Random) -> Pair:
    word = rng.choice(list(facts.MEANINGS))
    an = article(word)
    if word in ("sun", "moon"):
        an = f"the {word}"
    elif word in ("honey", "rain", "snow", "ice", "winter", "summer", "bread"):
        an = word
    question = rng.choice((
        f"What is {an}?", f"Tell me what {an} is.", f"Explain what {an} is.", f"Define {word}.",
        f"What does the word {word} mean?", f"What does {word} mean?", f"Explain {an}.",
    ))  # fmt: skip
    return question, facts.MEANINGS[word]


def amount(rng: Random) -> Pair:
    words = rng.choice(list(facts.AMOUNTS))
    answer, other = facts.AMOUNTS[words]
    start = rng.choice(("How many", "How many", "How many", "Tell me how many"))
    return f"{start} {rng.choice((words, other))}?", answer


def order(rng: Random) -> Pair:
    """Days, months and seasons, and what comes next or before."""
    row, unit = rng.choice(((facts.DAYS, "day"), (facts.DAYS, "day"), (facts.MONTHS, "month"),
                            (facts.MONTHS, "month"), (facts.SEASONS, "season")))  # fmt: skip
    place = rng.randrange(len(row))
    name, after = row[place], row[(place + 1) % len(row)]
    before = row[place - 1]
    chance = rng.random()
    if chance < 0.42:
        question = rng.choice((
            f"What {unit} comes after {name}?", f"Which {unit} comes after {name}?",
            f"What comes after {name}?", f"What is the {unit} after {name}?", f"What {unit} follows {name}?",
            f"Which {unit} follows {name}?", f"After {name} comes which {unit}?",
            f"What is the next {unit} after {name}?", f"Which {unit} is after {name}?",
        ))  # fmt: skip
        if unit == "day" and rng.random() < 0.25:
            question = f"If today is {name}, what day is tomorrow?"
        return question, f"{capitalised(after)} comes after {name}."
    if chance < 0.75:
        question = rng.choice((
            f"What {unit} comes before {name}?", f"Which {unit} comes before {name}?",
            f"What comes before {name}?", f"What is the {unit} before {name}?",
            f"Before {name} comes which {unit}?", f"Which {unit} is before {name}?",
        ))  # fmt: skip
        if unit == "day" and rng.random() < 0.25:
            question = f"If today is {name}, what day was yesterday?"
        return question, f"{capitalised(before)} comes before {name}."
    if chance < 0.85 or unit == "season":
        question = rng.choice((
            f"List the {unit}s.", f"Name all {unit}s.", f"What are the {unit}s called?",
            f"Tell me the {unit}s in order.", f"Name the {unit}s of the {'week' if unit == 'day' else 'year'}.",
            f"List the {unit}s of the {'week' if unit == 'day' else 'year'}.",
            f"What are the {unit}s of the {'week' if unit == 'day' else 'year'}?",
        ))  # fmt: skip
        return question, capitalised(", ".join(row)) + "."
    whole = "week" if unit == "day" else "year"
    nth = rng.choice((facts.ORDINALS[place], facts.ORDINALS[place], _short_ordinal(place + 1)))
    if place == len(row) - 1 and rng.random() < 0.5:
        nth = "last"
    question = rng.choice((f"{capitalised(nth)} {unit} of the {whole}?", f"What is the {nth} {unit} of the {whole}?", f"Which {unit} is the {nth} of "
                           f"the {whole}?", f"Which is the {nth} {unit} of the {whole}?"))  # fmt: skip
    return question, f"The {nth} {unit} of the {whole} is {name}."


def _short_ordinal(number: int) -> str:
    return f"{number}{({1: 'st', 2: 'nd', 3: 'rd'}).get(number, 'th')}"


def plural(rng: Random) -> Pair:
    word = rng.choice(list(facts.PLURALS))
    question = rng.choice((f"What is the plural of {word}?", f"Plural of {word}?", f"One {word}, two what?",
                           f"Tell me the plural of {word}.", f"What is the plural form of {word}?"))  # fmt: skip
    return question, f"The plural of {word} is {facts.PLURALS[word]}."


def past(rng: Random) -> Pair:
    verb = rng.choice(list(facts.PASTS))
    question = rng.choice((f"What is the past tense of {verb}?", f"Past tense of {verb}?",
                           f"What is the past of {verb}?", f"Tell me the past tense of {verb}."))  # fmt: skip
    return question, f"The past tense of {verb} is {facts.PASTS[verb]}."


def ability(rng: Random) -> Pair:
    """What animals can do."""
    can = {
        "fly": ("bee bird owl eagle butterfly fly duck crow", "dog cat pig cow fish horse penguin"),
        "swim": ("fish duck whale frog seal penguin shark", "bee ant butterfly spider fly"),
        "bark": ("dog", "cat fish bee cow bird"),
        "talk": ("person human", "dog stone tree fish table"),
        "make honey": ("bee", "dog cat cow wasp ant"),
    }
    act = rng.choice(list(can))
    answer = rng.random() < 0.5
    an = article(rng.choice(can[act][0 if answer else 1].split()))
    question = rng.choice(
        (f"Can {an} {act}?", f"Is {an} able to {act}?", f"Can {an} {act}, yes or no?")
    )
    return question, f"Yes, {an} can {act}." if answer else f"No, {an} cannot {act}."
