"""How people type: the same question in many guises."""

# ruff: noqa: E501 - tables of words read better wide

from collections.abc import Callable
from random import Random
from typing import Final

Pair = tuple[str, str]  # what the user types, what bee-tiny answers
Maker = Callable[[Random], Pair]

GREETINGS: Final = (
    "Hey, ", "Hi! ", "Hello, ", "Hello! ", "Hi, ", "Hi bee, ", "Good morning! ", "Ok, ", "And ", "So ",
    "Now, ", "Um, ", "Hm, ", "Well, ", "Bee, ", "Hey bee, ", "Please, ", "Thanks! ", "Great. ", "I see. ",
    "Quick question: ", "I have a question. ", "Question: ", "One more: ", "Next question: ", "Help me: ",
    "I forgot. ", "I wonder, ", "My teacher asks: ", "Answer this: ", "Excuse me, ", "Hi there! ",
)  # fmt: skip
LEADS: Final = (
    "Tell me, ", "Please tell me: ", "Can you tell me: ", "Do you know: ", "I would like to know: ",
    "Please answer: ", "Can you tell me ", "Can you please tell me ", "Could you tell me ",
    "Could you please tell me ", "Please tell me ", "Tell me ", "Do you know ", "I want to know ",
)  # fmt: skip
SUFFIXES: Final = (
    " Thanks!", " Thank you.", " Please.", " Do you know?", " Please answer.", " Thanks.",
    " Tell me.", " I want to know.", " Can you help?", " Be brief.", " Answer in one sentence.",
)  # fmt: skip
ENDINGS: Final = (
    " Please.",
    " please",
    ", please",
    "?",
    "!",
    " for me?",
    " please?",
    ", please.",
    " for me",
    ".",
)


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
    if rng.random() < 0.14:
        text = rng.choice(LEADS) + _lowered(text)
    if rng.random() < 0.14:
        text = rng.choice(GREETINGS) + (text if rng.random() < 0.4 else _lowered(text))
    chance = rng.random()
    if chance < 0.25:
        text = text.rstrip("?.!")
    elif chance < 0.35:
        text = text.rstrip("?.!") + rng.choice(ENDINGS)
    elif chance < 0.43:
        text += rng.choice(SUFFIXES)
    return text


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]


def cased(rng: Random, text: str) -> str:
    """The question in the case that somebody may type it in. Not for what is to be copied."""
    chance = rng.random()
    if chance < 0.22:
        return text.lower()
    if chance < 0.30:
        return _lowered(text)
    if chance < 0.315:
        return text.upper()
    return text


def _contract(rng: Random, text: str) -> str:
    for plain, short in (("What is", "What's"), ("Who is", "Who's"), ("do not", "don't")):
        text = text.replace(plain, rng.choice((short, short.replace("'", ""), short)))
    return text
