"""What a client asks for: one generation, checked and complete.

Rule 1: everything here is a frozen value that travels: from a face, through the pool and
        over the link, to an engine.
Rule 2: limits stand in the types, so that whatever decodes them has checked them.
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

STOP_STRINGS_MAX: Final = 16
STOP_BYTES_MAX: Final = 256
LOGPROBS_MAX: Final = 20  # as OpenAI's API has it
LOGIT_BIAS_MAX: Final = 1024
MESSAGES_MAX: Final = 2048
CHOICES_MAX: Final = 16
SCHEMA_BYTES_MAX: Final = 16 * 1024  # larger schemas took a grammar compiler minutes elsewhere
TOKENS_MAX: Final = 1 << 20

FinishReason = Literal["stop", "length"]


class Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the values that travel."""


class Message(Value, frozen=True):
    """One turn of a conversation. Parts have been joined to one text."""

    role: Literal["system", "user", "assistant"]
    content: str


class Sampling(Value, frozen=True, omit_defaults=True):
    """How the next token is chosen. The defaults are OpenAI's, not an engine's."""

    temperature: Annotated[float, Meta(ge=0, le=2)] = 1.0  # 0: greedy
    top_p: Annotated[float, Meta(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Meta(ge=0, le=1_000_000)] = 0  # 0: all
    min_p: Annotated[float, Meta(ge=0, le=1)] = 0.0
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] = 0.0
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] = 0.0
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] = 1.0
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None  # None: the engine draws one
    logit_bias: Annotated[dict[int, float], Meta(max_length=LOGIT_BIAS_MAX)] = {}  # token id: add
    # None: no logprobs. 0: the chosen token's alone. k: those of the k likeliest as well.
    # They are log_softmax of the raw logits, before temperature and penalties.
    logprobs: Annotated[int, Meta(ge=0, le=LOGPROBS_MAX)] | None = None


class Ask(Value, frozen=True, omit_defaults=True):
    """One generation. Either ``messages`` or ``prompt`` or ``prompt_ids`` is given."""

    model: str
    messages: Annotated[tuple[Message, ...], Meta(max_length=MESSAGES_MAX)] = ()
    prompt: str | None = None
    prompt_ids: tuple[int, ...] | None = None
    tokens_max: Annotated[int, Meta(ge=1, le=TOKENS_MAX)] | None = None  # None: what fits
    stop: Annotated[tuple[str, ...], Meta(max_length=STOP_STRINGS_MAX)] = ()
    sampling: Sampling = Sampling()
    # JSON text of a JSON Schema that the answer must match; '{"type":"object"}' for json_object.
    json_schema: Annotated[str, Meta(max_length=SCHEMA_BYTES_MAX)] | None = None


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True):
    """How likely one token was. ``piece`` is the token's bytes, maybe half a character."""

    token_id: int
    piece: bytes
    logprob: float  # natural logarithm
    top: tuple[tuple[int, bytes, float], ...] = ()  # (token id, piece, logprob), likeliest first
