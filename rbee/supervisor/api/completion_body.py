"""The body of ``POST /v1/completions``: bytes in, an order out.

Pure. Any bytes whatever give an `Order` or a `RequestError`.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from rbee.ask import TOKENS_MAX, Ask, Sampling
from rbee.supervisor.api.fields import (
    Field,
    Fields,
    Findings,
    Schema,
    array_schema,
    integer,
    kind,
    object_schema,
    only,
    read_fields,
    text_schema,
)
from rbee.supervisor.api.json_text import decode_json
from rbee.supervisor.api.order import Order, choices_of
from rbee.supervisor.api.parameters import (
    COMMON,
    IGNORED,
    TEXT_MAX,
    check_together,
    read_sampling,
)

PROMPTS_MAX: Final = 128
ASKS_MAX: Final = 128  # prompts times n: each takes a place in the queue
PROMPT_IDS_MAX: Final = TOKENS_MAX
TOKEN_ID_MAX: Final = 2**31 - 1
LOGPROBS_MAX: Final = 5  # as OpenAI's API has it for this route
TOKENS_DEFAULT: Final = 16  # as OpenAI's API has it for this route

Prompt: TypeAlias = str | tuple[int, ...]


def read_completion(raw: bytes) -> Order:
    """Read and check one body.

    Raises:
      RequestError: not JSON, or not what this route takes; names all violations.
    """
    found = Findings()
    body = decode_json(raw)
    values = read_fields(body, PARAMETERS, found, ignored=IGNORED)
    found.require(body, values, "model", "prompt")
    check_together(values, found)
    prompts: tuple[Prompt, ...] = values.get("prompt", ())
    choices = values.get("n", 1)
    if len(prompts) * choices > ASKS_MAX:
        found.wrong("n", f"times the number of prompts must be at most {ASKS_MAX}")
    found.raise_if_any()
    logprobs: int | None = values.get("logprobs")
    sampling = read_sampling(values, logprobs)
    asks = [_ask(values, prompt, sampling) for prompt in prompts]
    return Order(
        model=values["model"],
        asks=tuple(choice for ask in asks for choice in choices_of(ask, choices)),
        choices_per_prompt=choices,
        is_streamed=values.get("stream", False),
        include_usage=values.get("stream_options", {}).get("include_usage", False),
        has_logprobs=logprobs is not None,
        top_logprobs=logprobs or 0,
    )


def _ask(values: Mapping[str, Any], prompt: Prompt, sampling: Sampling) -> Ask:
    return Ask(
        model=values["model"],
        prompt=prompt if isinstance(prompt, str) else None,
        prompt_ids=None if isinstance(prompt, str) else prompt,
        tokens_max=values.get("max_tokens", TOKENS_DEFAULT),
        stop=values.get("stop", ()),
        sampling=sampling,
    )


def _prompts(value: object, field: str, found: Findings) -> tuple[Prompt, ...] | None:
    """A string, an array of strings, an array of token ids, or an array of such arrays."""
    if isinstance(value, str):
        entries: list[Any] = [value]
    elif not isinstance(value, list):
        found.wrong(field, f"must be a string or an array, got {kind(value)}")
        return None
    else:
        entries = [value] if value and _is_integer(value[0]) else value
    if not 1 <= len(entries) <= PROMPTS_MAX:
        found.wrong(field, f"must have 1 to {PROMPTS_MAX} prompts")
    elif len({type(each) for each in entries}) > 1:
        found.wrong(field, "must hold strings alone, or token ids alone")
    else:
        read = [_prompt(each, field, found) for each in entries]
        if None not in read:
            return tuple(each for each in read if each is not None)
    return None


def _prompt(value: object, field: str, found: Findings) -> Prompt | None:
    if isinstance(value, str):
        if value:
            return value
        found.wrong(field, "must not be empty")
    elif not isinstance(value, list):
        found.wrong(field, f"must hold strings or arrays of token ids, got {kind(value)}")
    elif not 1 <= len(value) <= PROMPT_IDS_MAX:
        found.wrong(field, f"must have 1 to {PROMPT_IDS_MAX} token ids")
    elif not all(_is_integer(each) and 0 <= each <= TOKEN_ID_MAX for each in value):
        found.wrong(field, f"must hold token ids from 0 to {TOKEN_ID_MAX}")
    else:
        return tuple(value)
    return None


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_IDS_SCHEMA: Final = array_schema(
    {"type": "integer", "minimum": 0, "maximum": TOKEN_ID_MAX}, 1, PROMPT_IDS_MAX
)
_TEXT_SCHEMA: Final = text_schema(1, TEXT_MAX)

_PROMPTS_SCHEMA: Final[Schema] = {
    "anyOf": [
        _TEXT_SCHEMA,
        array_schema(_TEXT_SCHEMA, 1, PROMPTS_MAX),
        _IDS_SCHEMA,
        array_schema(_IDS_SCHEMA, 1, PROMPTS_MAX),
    ]
}

PARAMETERS: Final[Fields] = {
    **COMMON,
    "prompt": Field(_prompts, _PROMPTS_SCHEMA),
    "logprobs": integer(0, LOGPROBS_MAX),
    "echo": only(False),
    "best_of": only(1),
    "suffix": only(),
}

COMPLETION_SCHEMA: Final = object_schema(PARAMETERS, "model", "prompt", ignored=IGNORED)
