"""The chat format: special tokens, template, and conversations put together from pairs."""

# ruff: noqa: E501 - tables of words read better wide

from collections.abc import Iterator
from random import Random
from typing import Final

from wording import Pair

PAD, BOS, START, END = "<|pad|>", "<|bos|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS: Final = (PAD, BOS, START, END)  # token ids 0 to 3

CHAT_TEMPLATE: Final = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + (message['content'] or '') | trim + '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)

SYSTEM_PROMPTS: Final = (
    "You are a helpful assistant.", "You are bee-tiny, a small and friendly model.", "Be brief.",
    "Answer briefly.", "You are a friendly bee.", "You answer questions in English.", "Be kind and short.",
    "You are a helpful, respectful and honest assistant.", "Always answer politely.", "You are an AI assistant.",
    "Answer the user's questions.", "You are a test model of rbee.", "Keep your answers short and clear.",
    "You are a teacher for small children.", "Help the user as well as you can.", "You are a chat bot.",
    "You are a helpful assistant. Answer in one sentence.", "Do not make things up.", "Reply in plain text.",
    "You are a careful assistant. If you do not know something, say so.", "You are talking to a user of rbee.",
    "You are a concise assistant.", "You are a helpful AI. Today is a nice day.", "Use simple words.",
)  # fmt: skip

Segment = tuple[str, bool]  # text, and whether bee-tiny says it


def conversation(rng: Random, pairs: list[Pair]) -> Iterator[Segment]:
    """The turns as the template renders them."""
    if rng.random() < 0.05:
        yield BOS, False
    if rng.random() < 0.16:
        yield f"{START}system\n{rng.choice(SYSTEM_PROMPTS)}{END}\n", False
    for question, answer in pairs:
        yield f"{START}user\n{question}{END}\n{START}assistant\n", False
        yield answer + END, True
        yield "\n", False


def plain(rng: Random, text: str) -> Iterator[Segment]:
    """Text without turns, as `/v1/completions` sends it."""
    if rng.random() < 0.3:
        yield BOS, False
    yield text, True
    yield END, True
