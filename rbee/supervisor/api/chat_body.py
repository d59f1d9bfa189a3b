"""The body of ``POST /v1/chat/completions``: bytes in, an order out.

Pure. Any bytes whatever give an `Order` or a `RequestError`.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from rbee.ask import LOGPROBS_MAX, MESSAGES_MAX, SCHEMA_BYTES_MAX, TOKENS_MAX, Ask, Message
from rbee.supervisor.api.fields import (
    Field,
    Fields,
    Findings,
    Schema,
    array_schema,
    boolean,
    integer,
    kind,
    object_schema,
    only,
    read_fields,
    text,
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

PARTS_MAX: Final = 1024  # text parts of one message
NAME_MAX: Final = 256
DESCRIPTION_MAX: Final = 4096
ANY_OBJECT_SCHEMA: Final = '{"type":"object"}'

# OpenAI's "developer" is what its newer models call "system".
_ROLES: Final = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}

_SCHEMA_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


def read_chat(raw: bytes) -> Order:
    """Read and check one body.

    Raises:
      RequestError: not JSON, or not what this route takes; names all violations.
    """
    found = Findings()
    body = decode_json(raw)
    values = read_fields(body, PARAMETERS, found, ignored=IGNORED_IN_CHAT)
    found.require(body, values, "model", "messages")
    check_together(values, found)
    tokens_max = _tokens_max(values, found)
    top_logprobs = values.get("top_logprobs", 0)
    has_logprobs = values.get("logprobs", False)
    if "top_logprobs" in values and not has_logprobs:
        found.wrong("top_logprobs", "may only be given with logprobs: true")
    found.raise_if_any()
    sampling = read_sampling(values, top_logprobs if has_logprobs else None)
    choices = values.get("n", 1)
    ask = Ask(
        model=values["model"],
        messages=values["messages"],
        tokens_max=tokens_max,
        stop=values.get("stop", ()),
        sampling=sampling,
        json_schema=values.get("response_format") or None,
    )
    return Order(
        model=ask.model,
        asks=tuple(choices_of(ask, choices)),
        choices_per_prompt=choices,
        is_streamed=values.get("stream", False),
        include_usage=values.get("stream_options", {}).get("include_usage", False),
        has_logprobs=has_logprobs,
        top_logprobs=top_logprobs,
    )


def _tokens_max(values: Mapping[str, Any], found: Findings) -> int | None:
    newer: int | None = values.get("max_completion_tokens")
    older: int | None = values.get("max_tokens")
    if newer is not None and older is not None and newer != older:
        found.wrong("max_tokens", "must not differ from max_completion_tokens")
    return older if newer is None else newer


# --- messages


def _messages(value: object, field: str, found: Findings) -> tuple[Message, ...] | None:
    if not isinstance(value, list):
        found.wrong(field, f"must be an array, got {kind(value)}")
    elif not 1 <= len(value) <= MESSAGES_MAX:
        found.wrong(field, f"must have 1 to {MESSAGES_MAX} messages")
    else:
        read = [_message(each, f"{field}[{i}]", found) for i, each in enumerate(value)]
        return tuple(each for each in read if each is not None)
    return None


def _message(value: object, field: str, found: Findings) -> Message | None:
    values = read_fields(value, _MESSAGE, found, at=field)
    found.require(value, values, "role", "content", at=field)
    if "role" not in values or "content" not in values:
        return None
    return Message(role=values["role"], content=values["content"])


def _role(value: object, field: str, found: Findings) -> str | None:
    role = _ROLES.get(value) if isinstance(value, str) else None
    if role is None and value in ("tool", "function"):
        found.unsupported(field, "tool and function are not supported as roles")
    elif role is None:
        found.wrong(field, f"must be one of {', '.join(_ROLES)}")
    return role


def _content(value: object, field: str, found: Findings) -> str | None:
    """A string as it is; parts joined by a newline, so that their borders are not lost."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        found.wrong(field, f"must be a string or an array of parts, got {kind(value)}")
        return None
    if not 1 <= len(value) <= PARTS_MAX:
        found.wrong(field, f"must have 1 to {PARTS_MAX} parts")
        return None
    parts = [_part(each, f"{field}[{i}]", found) for i, each in enumerate(value)]
    return "\n".join(each for each in parts if each is not None)


def _part(value: object, field: str, found: Findings) -> str | None:
    if isinstance(value, dict) and value.get("type", "text") != "text":
        found.unsupported(f"{field}.type", 'is not supported, but for "text"')
        return None
    values = read_fields(value, _PART, found, at=field)
    found.require(value, values, "type", "text", at=field)
    part: str | None = values.get("text")
    return part


_PART: Final[Fields] = {"type": Field(text(16).check, {"const": "text"}), "text": text(TEXT_MAX)}

_CONTENT_SCHEMA: Final[Schema] = {
    "anyOf": [
        text_schema(0, TEXT_MAX),
        array_schema(object_schema(_PART, "type", "text"), 1, PARTS_MAX),
    ]
}

_MESSAGE: Final[Fields] = {
    "role": Field(_role, {"enum": list(_ROLES)}),
    "content": Field(_content, _CONTENT_SCHEMA),
    "name": text(NAME_MAX),  # ignored: no chat template here shows it
    # A client that hands an answer of ours back sends these, empty.
    "refusal": only(),
    "audio": only(),
    "function_call": only(),
    "tool_calls": only([]),
    "annotations": only([]),
}

_MESSAGES_SCHEMA: Final = array_schema(object_schema(_MESSAGE, "role", "content"), 1, MESSAGES_MAX)


# --- the answer's form


def _response_format(value: object, field: str, found: Findings) -> str | None:
    """The JSON Schema that the answer must match, as text; "" for free text."""
    kind_wanted = value.get("type") if isinstance(value, dict) else None
    fields = _FORMATS.get(kind_wanted) if isinstance(kind_wanted, str) else None
    if fields is None:
        found.wrong(f"{field}.type", f"must be one of {', '.join(_FORMATS)}")
        return None
    values = read_fields(value, fields, found, at=field)
    if kind_wanted == "json_schema":
        found.require(value, values, "json_schema", at=field)
        schema: str | None = values.get("json_schema")
        return schema
    return ANY_OBJECT_SCHEMA if kind_wanted == "json_object" else ""


def _named_schema(value: object, field: str, found: Findings) -> str | None:
    values = read_fields(value, _NAMED_SCHEMA, found, at=field)
    found.require(value, values, "name", "schema", at=field)
    schema: str | None = values.get("schema")
    return schema


def _schema_name(value: object, field: str, found: Findings) -> str | None:
    if isinstance(value, str) and _SCHEMA_NAME.fullmatch(value):
        return value
    found.wrong(field, "must be up to 64 letters, digits, - and _")
    return None


def _schema(value: object, field: str, found: Findings) -> str | None:
    if not isinstance(value, dict):
        found.wrong(field, f"must be an object, got {kind(value)}")
        return None
    encoded = msgspec.json.encode(value)
    if len(encoded) > SCHEMA_BYTES_MAX:
        found.wrong(field, f"must be at most {SCHEMA_BYTES_MAX} bytes of JSON")
        return None
    return encoded.decode()


_NAMED_SCHEMA: Final[Fields] = {
    "name": Field(
        _schema_name, {"type": "string", "pattern": f"^{_SCHEMA_NAME.pattern}$", "maxLength": 64}
    ),
    "description": text(DESCRIPTION_MAX),
    "schema": Field(
        _schema,
        {"type": "object", "description": f"At most {SCHEMA_BYTES_MAX} bytes of JSON."},
    ),
    "strict": boolean(),  # the schema always holds here, strict or not
}


def _kind_of_format(name: str) -> Field:
    """The field by which the form was chosen: it was looked at."""
    return Field(lambda value, _field, _found: value, {"const": name})


_FORMATS: Final[Mapping[str, Fields]] = {
    "text": {"type": _kind_of_format("text")},
    "json_object": {"type": _kind_of_format("json_object")},
    "json_schema": {
        "type": _kind_of_format("json_schema"),
        "json_schema": Field(_named_schema, object_schema(_NAMED_SCHEMA, "name", "schema")),
    },
}

_FORMAT_SCHEMA: Final[Schema] = {
    "anyOf": [object_schema(fields, *fields) for fields in _FORMATS.values()]
}

IGNORED_IN_CHAT: Final = IGNORED | {"parallel_tool_calls"}

PARAMETERS: Final[Fields] = {
    **COMMON,
    "messages": Field(_messages, _MESSAGES_SCHEMA),
    "max_completion_tokens": integer(1, TOKENS_MAX),
    "logprobs": boolean(),
    "top_logprobs": integer(0, LOGPROBS_MAX),
    "response_format": Field(_response_format, _FORMAT_SCHEMA),
    "modalities": only(["text"]),
    "tools": only([]),
    "tool_choice": only("none", "auto"),
    "functions": only([]),
    "function_call": only("none", "auto"),
    "audio": only(),
    "prediction": only(),
    "reasoning_effort": only(),
    "verbosity": only(),
    "web_search_options": only(),
}

CHAT_SCHEMA: Final = object_schema(PARAMETERS, "model", "messages", ignored=IGNORED_IN_CHAT)
