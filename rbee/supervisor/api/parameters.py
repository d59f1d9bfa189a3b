"""The parameters that chat and plain completions share: their checks, and what is ignored."""

import re
from collections.abc import Mapping
from typing import Any, Final

from rbee.ask import (
    CHOICES_MAX,
    LOGIT_BIAS_MAX,
    STOP_BYTES_MAX,
    STOP_STRINGS_MAX,
    TOKENS_MAX,
    Sampling,
)
from rbee.ids import MODEL_NAME, is_model_name
from rbee.supervisor.api.fields import (
    Field,
    Fields,
    Findings,
    Schema,
    array_schema,
    boolean,
    integer,
    kind,
    number,
    object_schema,
    only,
    read_fields,
    text_schema,
)
from rbee.supervisor.api.order import SEED_MASK

# Taken and not looked at: OpenAI's clients send them, and there they concern accounts, storage,
# prices and caches, never the text of the answer. docs/api.md has the same list.
IGNORED: Final = frozenset(
    {
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
    }
)

# Characters of one text. The largest body that a server can be set to take holds no more.
TEXT_MAX: Final = 8 * 1024 * 1024

_TOKEN_ID: Final = re.compile(r"[0-9]{1,9}", re.ASCII)


def _model(value: object, field: str, found: Findings) -> str | None:
    if not isinstance(value, str):
        found.wrong(field, f"must be a string, got {kind(value)}")
    elif not is_model_name(value):
        found.wrong(field, "must be the name of a model: up to 128 letters, digits and ._:/-")
    else:
        return value
    return None


# ".." in a name is refused as well: it would leave a folder, were a name ever part of a path.
MODEL_SCHEMA: Final[Schema] = {
    "type": "string",
    "pattern": rf"^(?!.*\.\.){MODEL_NAME.pattern}$",
    "minLength": 1,
    "maxLength": 128,
    "description": "A name that GET /v1/models lists.",
}


def _stop(value: object, field: str, found: Findings) -> tuple[str, ...] | None:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
        found.wrong(field, "must be a string or an array of strings")
    elif len(texts) > STOP_STRINGS_MAX:
        found.wrong(field, f"must have at most {STOP_STRINGS_MAX} strings")
    elif not all(1 <= len(each.encode()) <= STOP_BYTES_MAX for each in texts):
        found.wrong(field, f"must hold strings of 1 to {STOP_BYTES_MAX} bytes")
    else:
        return tuple(texts)
    return None


_STOP_STRING: Final = {
    **text_schema(1, STOP_BYTES_MAX),
    "description": f"At most {STOP_BYTES_MAX} bytes of UTF-8.",
}
STOP_SCHEMA: Final[Schema] = {
    "anyOf": [_STOP_STRING, array_schema(_STOP_STRING, 0, STOP_STRINGS_MAX)]
}


def _logit_bias(value: object, field: str, found: Findings) -> dict[int, float] | None:
    if not isinstance(value, dict):
        found.wrong(field, f"must be an object, got {kind(value)}")
    elif len(value) > LOGIT_BIAS_MAX:
        found.wrong(field, f"must have at most {LOGIT_BIAS_MAX} entries")
    elif not all(_TOKEN_ID.fullmatch(key) for key in value):
        found.wrong(field, "must have token ids as keys, in decimal digits")
    elif len({int(key) for key in value}) < len(value):
        found.wrong(field, "must name each token id once")
    elif not all(_is_bias(each) for each in value.values()):
        found.wrong(field, "must have numbers from -100 to 100 as values")
    else:
        return {int(key): float(each) for key, each in value.items()}
    return None


def _is_bias(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and -100 <= value <= 100  # type: ignore[operator]  # mypy loses is_number


LOGIT_BIAS_SCHEMA: Final[Schema] = {
    "type": "object",
    "propertyNames": {"pattern": f"^{_TOKEN_ID.pattern}$"},
    "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
    "maxProperties": LOGIT_BIAS_MAX,
    "description": "By token id, each once: 7 and 07 are the same.",
}

STREAM_OPTIONS: Final[Fields] = {
    "include_usage": boolean(),
    "include_obfuscation": only(False),
}


def _stream_options(value: object, field: str, found: Findings) -> dict[str, Any]:
    return read_fields(value, STREAM_OPTIONS, found, at=field)


COMMON: Final[Fields] = {
    "model": Field(_model, MODEL_SCHEMA),
    "max_tokens": integer(1, TOKENS_MAX),
    "temperature": number(0, 2),
    "top_p": number(0, 1, above=True),
    "top_k": integer(-1, 1_000_000),
    "min_p": number(0, 1),
    "frequency_penalty": number(-2, 2),
    "presence_penalty": number(-2, 2),
    "repetition_penalty": number(0, 10, above=True),
    "seed": integer(-(2**63), 2**63 - 1),
    "logit_bias": Field(_logit_bias, LOGIT_BIAS_SCHEMA),
    "stop": Field(_stop, STOP_SCHEMA),
    "n": integer(1, CHOICES_MAX),
    "stream": boolean(),
    "stream_options": Field(_stream_options, object_schema(STREAM_OPTIONS)),
}

_SAMPLING: Final = (
    "temperature", "top_p", "min_p", "frequency_penalty", "presence_penalty",
    "repetition_penalty", "logit_bias",
)  # fmt: skip


def read_sampling(values: Mapping[str, Any], logprobs: int | None) -> Sampling:
    """The sampling of the first choice."""
    given = {name: values[name] for name in _SAMPLING if name in values}
    seed = values.get("seed")
    return Sampling(
        **given,
        top_k=max(0, values.get("top_k", 0)),  # -1 is how some clients say "all"
        seed=None if seed is None else seed & SEED_MASK,
        logprobs=logprobs,
    )


def check_together(values: Mapping[str, Any], found: Findings) -> None:
    """What two parameters may not say together."""
    if "stream_options" in values and not values.get("stream"):
        found.wrong("stream_options", "may only be given with stream: true")
