"""What the clients of a drill ask: requests whose one right answer is known."""

import random
from collections.abc import Callable
from typing import Any, Final

import httpx2

from rbee.chaos.answers import Asked, numbers
from rbee.chaos.server import DrillError

# For bee-tiny, whose greedy answers are learned before anything goes wrong.
PROMPTS: Final = ("What is 2 plus 3?", "What is the opposite of hot?", "Once there was a bee")
LEARNED_TOKENS: Final = 160
_LEARN_TIMEOUT_S: Final = 60.0

# Long enough to show how fast prompts are read: docs/recovery.md, budgets.
COUNT: Final = "Count from zero, and go on for as long as you are asked to. " * 2

AskNext = Callable[[], Asked]
"""The next request of a client."""


def counting(tokens: tuple[int, int], chance: random.Random, model: str = "first") -> AskNext:
    """Requests to the synthetic engine, each of some length between those two."""

    def ask_next() -> Asked:
        return count_to(chance.randint(*tokens), chance, model=model)

    return ask_next


def count_to(
    tokens: int, chance: random.Random, *, model: str = "first", prompt: str = COUNT
) -> Asked:
    """A request to the synthetic engine, in one of the forms that clients use."""
    path, body = _form(prompt, tokens, model, chance)
    return Asked(path, _streamed(body, chance), numbers(tokens), tokens)


async def learned(url: str, chance: random.Random, model: str = "first") -> AskNext:
    """Requests to bee-tiny, with the answers that it gives while nothing is wrong.

    Raises:
      DrillError: it gives none.
    """
    menu: list[Asked] = []
    async with httpx2.AsyncClient(timeout=_LEARN_TIMEOUT_S, trust_env=False) as client:
        for prompt in PROMPTS:
            path, body = _form(prompt, LEARNED_TOKENS, model, chance)
            body["n"] = 1
            answer = await client.post(url + path, json=body)
            if answer.status_code != 200:
                raise DrillError(f"bee-tiny answers with status {answer.status_code}")
            document = answer.json()
            choice, tokens = document["choices"][0], document["usage"]["completion_tokens"]
            text = choice["text"] if "text" in choice else choice["message"]["content"]
            menu.append(Asked(path, body, text, tokens))

    def ask_next() -> Asked:
        known = chance.choice(menu)
        return Asked(known.path, _streamed(known.body, chance), known.text, known.tokens)

    return ask_next


def _form(
    prompt: str, tokens: int, model: str, chance: random.Random
) -> tuple[str, dict[str, Any]]:
    body: dict[str, Any] = {"model": model, "max_tokens": tokens, "temperature": 0}
    body["n"] = chance.choice((1, 1, 2))
    if chance.random() < 0.5:
        message = {"role": "user", "content": prompt}
        return "/v1/chat/completions", {**body, "messages": [message]}
    return "/v1/completions", {**body, "prompt": prompt}


def _streamed(body: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    if chance.random() < 0.25:
        return body
    return {**body, "stream": True, "stream_options": {"include_usage": True}}
