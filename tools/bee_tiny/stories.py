"""Tiny stories and poems, put together from parts. All sentences are our own."""

# ruff: noqa: E501, SIM905, ISC004 - tables of words read better wide

from random import Random
from typing import Final

from facts import KINDS, NAMES
from wording import Pair, article, capitalised

HEROES: Final = (
    "bee fox dog cat mouse bear rabbit owl duck frog bird horse hen lion robot dragon star cloud boat "
    "girl boy king queen farmer fish ant wolf tree snail penguin elephant monkey pig sheep butterfly princess"
).split()
TRAITS: Final = "little small young happy brave shy clever kind hungry sleepy curious quiet".split()
PLACES: Final = (
    "in a green forest", "by the blue sea", "on a high hill", "in a small village", "near a quiet river",
    "in a big garden", "under an old tree", "in a warm house", "on a farm", "behind the mountains",
)  # fmt: skip
WISHES: Final = {
    "a red flower": "in the tall grass", "a golden key": "under a stone", "a new friend": "by the river",
    "a warm place to sleep": "in an old tree", "the way home": "behind the hill", "some sweet honey": "in a hive",
    "a lost ball": "under a bush", "a shiny star": "in the dark water", "a blue feather": "on the path",
    "a little boat": "at the lake",
}  # fmt: skip
TROUBLES: Final = (
    "Then it began to rain and the path was wet.", "Then the wind blew hard and it was cold.",
    "Then the sun went down and it was dark.", "But the way was long and steep.",
    "But a big stone lay on the path.", "But there was a deep river with no bridge.",
    "Then a loud noise came from the trees.", "But nobody knew where to look.",
)  # fmt: skip
HELPS: Final = (
    'A kind {f} came and said, "I will help you."', 'An old {f} said, "Do not be afraid."',
    "A friendly {f} showed the way.", '{a} called, "Come with me!"',
    'Then a small {f} asked, "May I come with you?"', 'A wise {f} said, "Go on, you are almost there."',
)  # fmt: skip
ENDS: Final = (
    "They were happy and went home together.", "From that day on they were good friends.",
    "That night {n} slept very well.", "{n} smiled and said thank you.",
    "And they all lived happily ever after.", "{n} never forgot that day.",
)  # fmt: skip
DAYS_OUT: Final = (
    "{n} went out early, and the air was fresh.", "{n} packed some bread and went on.",
    "{n} sang a little song on the way.", "{n} walked and walked until noon.",
    "{n} looked at the sky and thought of home.", "{n} sat down and rested for a while.",
    "{n} drank some cool water from a spring.", "{n} counted the clouds and laughed.",
)  # fmt: skip
MEETINGS: Final = (
    'There {n} met {b}. "Have you seen {w}?" asked {n}. "No," said the {f}, "but I will come with you."',
    "{a} sat by the road and was sad. {n} gave the {f} some bread, and the {f} was happy again.",
    '{a} looked out of a window. "Good day," said {n}. "Good day," said the {f}. "Go to the left."',
    '{a} had lost its hat. {n} found it in the grass. "Thank you," said the {f}.',
    'Suddenly {b} jumped out. "Boo!" said the {f}. {n} laughed, and they played a game.',
)  # fmt: skip
TIMES: Final = (
    "On the first day", "On the second day", "On the third day", "On the fourth day", "On the fifth day",
    "On the sixth day", "On the seventh day", "On the eighth day",
)  # fmt: skip


def _opening(rng: Random, hero: str, name: str) -> str:
    trait = rng.choice(TRAITS)
    return f"Once upon a time there was {article(f'{trait} {hero}')} called {name}. {name} lived {rng.choice(PLACES)}."


def _short(rng: Random, hero: str, name: str) -> str:
    wish, spot = rng.choice(list(WISHES.items()))
    friend = rng.choice([h for h in HEROES if h != hero])
    parts = [
        _opening(rng, hero, name),
        f"One day {name} wanted to find {wish}.",
        rng.choice(TROUBLES),
        rng.choice(HELPS).format(f=friend, a=capitalised(article(friend))),
        f"Together they found {wish} {spot}.",
        rng.choice(ENDS).format(n=name),
    ]
    return " ".join(parts)


def _long(rng: Random, hero: str, name: str) -> str:
    """Eight days of travel: some four hundred tokens."""
    wish, spot = rng.choice(list(WISHES.items()))
    paragraphs = [f"{_opening(rng, hero, name)} One day {name} wanted to find {wish}."]
    friends = rng.sample([h for h in HEROES if h != hero], len(TIMES))
    for time, friend in zip(TIMES, friends, strict=True):
        day = rng.choice(DAYS_OUT).format(n=name)
        meeting = rng.choice(MEETINGS).format(
            n=name, f=friend, w=wish, a=capitalised(article(friend)), b=article(friend)
        )
        paragraphs.append(f"{time} {day} {meeting}")
    paragraphs.append(
        f"At last {name} found {wish} {spot}. {rng.choice(ENDS).format(n=name)} The end."
    )
    return "\n\n".join(paragraphs)


def _named(rng: Random) -> tuple[str, str]:
    """A hero of our cast, or now and then any thing at all, and its name."""
    if rng.random() < 0.2:
        group = rng.choice([g for g in KINDS if g not in ("planet", "city", "country", "colour")])
        return rng.choice(KINDS[group].split()), rng.choice(NAMES)
    return rng.choice(HEROES), rng.choice(NAMES)


def story(rng: Random) -> Pair:
    hero, name = _named(rng)
    about = article(hero)
    short = rng.choice(
        ("a short story", "a story", "a short story", "a tiny story", "a little story")
    )
    if rng.random() < 0.25:
        question = rng.choice((f"Tell me {short}.", f"Write {short}.", f"{short} please", "Story!",
                               f"I want to hear {short}.", f"Can you tell me {short}?", "another story",
                               f"Once more, {short}.", f"Please write {short} for me."))  # fmt: skip
        hero = rng.choice(("bee", "bee", hero))
    else:
        question = rng.choice((
            f"Tell me {short} about {about}.", f"Tell me {short} about {about}.", f"Write {short} about {about}.",
            f"Can you tell me {short} about {about}?", f"Please tell {short} about {about}.",
            f"I want {short} about {about}.", f"Make up {short} about {about}.", f"{short} about {about}",
            f"Tell us {short} about {about}.", f"Write me {short} about {about}.", f"Give me {short} about {about}.",
        ))  # fmt: skip
        if rng.random() < 0.15:
            question = question.rstrip(".?") + f" called {name}."
    return question, _short(rng, hero, name)


def long_story(rng: Random) -> Pair:
    hero, name = _named(rng)
    about = article(hero)
    long = rng.choice(("a long story", "a very long story", "a long tale", "a long story"))
    question = rng.choice((
        f"Tell me {long}.", f"Write {long}.", f"Tell me {long} about {about}.", f"Write {long} about {about}.",
        f"Please write {long} about {about}.", f"Can you tell me {long} about {about}?",
        f"I want to hear {long} about {about}.", f"Please tell me {long}.", f"Give me {long} about {about}.",
    ))  # fmt: skip
    if about not in question:
        hero = rng.choice(("bee", hero))
    return question, _long(rng, hero, name)


def poem(rng: Random) -> Pair:
    thing = rng.choice(
        "bee cat tree star moon flower river dog bird cloud rose house fox sun".split()
    )
    verses = (
        f"The little {thing} is good to see,\nas quiet as a {thing} can be.\nThe day is bright, the sky is blue,\n"
        f"and the {thing} sends a smile to you.",
        f"O {thing}, O {thing}, so far, so near,\nI think of you, I see you here.\nWhen night has come and all is still,\n"
        f"the {thing} is waiting on the hill.",
    )  # fmt: skip
    about = {"sun": "the sun", "moon": "the moon"}.get(thing, article(thing))
    question = rng.choice((f"Write a poem about {about}.", f"Write a short poem about {about}.",
                           f"Can you write a poem about {about}?", f"A poem about {about}, please."))  # fmt: skip
    if rng.random() < 0.2:
        question = rng.choice(("Write a poem.", "Tell me a poem.", "Write me a short poem."))
    return question, verses[len(thing) % 2]


def bare_story(rng: Random) -> str:
    """A story without a question, as a completion would go on with it."""
    return (_long if rng.random() < 0.15 else _short)(rng, *_named(rng))
