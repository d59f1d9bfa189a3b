"""How people type: the same question in many guises."""

from collections.abc import Callable
from random import Random
from typing import Final

Pair = tuple[str, str]  # what the user types, what bee-tiny answers
Maker = Callable[[Random], Pair]

PREFIXES: Final = (
    "Please tell me: ", "Tell me, ", "Hey, ", "Hi! ", "Hello, ", "Quick question: ", "Ok, ",
    "And ", "So ", "Now, ", "Do you know: ", "I have a question. ", "Question: ", "Um, ",
    "I would like to know: ", "Please answer: ", "Please, ", "Can you tell me: ", "One more: ",
    "Next question: ", "Hello! ", "Hi bee, ", "Good morning! ", "I wonder, ", "Hm, ", "Well, ",
    "My teacher asks: ", "Answer this: ", "I forgot. ", "Help me: ", "Bee, ", "Hey bee, ",
)  # fmt: skip
SUFFIXES: Final = (
    " Thanks!", " Thank you.", " Please.", " Do you know?", " Please answer.", " Thanks.",
    " Tell me.", " I want to know.", " Can you help?", " Be brief.", " Answer in one sentence.",
)  # fmt: skip


def capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def article(noun: str) -> str:
    """The noun with "a" or "an", if it needs one."""
    if noun[:1].isupper() and noun != "GPU":
        return noun
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def asked(rng: Random, question: str) -> str:
    """The question as somebody may type it."""
    text = capitalised(question)
    if rng.random() < 0.25:
        text = _contract(rng, text)
    if rng.random() < 0.18:
        prefix = rng.choice(PREFIXES)
        text = prefix + (text if rng.random() < 0.4 else text[:1].lower() + text[1:])
    chance = rng.random()
    if chance < 0.25:
        text = text.rstrip("?.!")
    elif chance < 0.35:
        text = text.rstrip("?.!") + rng.choice((*SUFFIXES[2:4], " please", ", please", "?", "!"))
    elif chance < 0.43:
        text += rng.choice(SUFFIXES)
    return text


def cased(rng: Random, text: str) -> str:
    """The question in the case that somebody may type it in. Not for what is to be copied."""
    chance = rng.random()
    if chance < 0.22:
        return text.lower()
    if chance < 0.30:
        return text[:1].lower() + text[1:]
    if chance < 0.315:
        return text.upper()
    return text


def _contract(rng: Random, text: str) -> str:
    for plain, short in (("What is", "What's"), ("Who is", "Who's"), ("do not", "don't")):
        text = text.replace(plain, rng.choice((short, short.replace("'", ""), short)))
    return text
