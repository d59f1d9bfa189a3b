"""What the answers of the API are, as types: for its description, and for tests of real answers.

The hot routes write their answers without these types, for speed. A member that has the default
UNSET may be missing.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from rbee.ask import FinishReason
from rbee.errors import ErrorCode
from rbee.ids import CORRELATION_ID
from rbee.rate_limits import Limits
from rbee.supervisor.access.api_key import KEY_ID
from rbee.supervisor.access.instant import RFC_3339
from rbee.supervisor.access.principal import JTI, Role
from rbee.supervisor.views import (
    BreakerView,
    CrashView,
    DiskView,
    GpuView,
    Readiness,
    WorkerView,
)

Count = Annotated[int, Meta(ge=0)]
CorrelationId = Annotated[str, Meta(pattern=f"^{CORRELATION_ID.pattern}$")]
KeyId = Annotated[str, Meta(pattern=f"^{KEY_ID.pattern}$")]
Time = Annotated[str, Meta(pattern=f"^{RFC_3339.pattern}$")]
ErrorType = Literal[
    "invalid_request_error", "authentication_error", "permission_error", "rate_limit_error",
    "server_error",
]  # fmt: skip


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all answers."""


class Detail(Body, frozen=True):
    """One thing that is wrong with a request. The value is never repeated."""

    field: str
    problem: str


class ErrorObject(Body, frozen=True):
    """Why a request was not answered."""

    message: str  # for people; may change
    type: ErrorType
    code: ErrorCode
    param: str | None
    details: tuple[Detail, ...]
    correlation_id: CorrelationId


class Error(Body, frozen=True):
    """The one shape of errors."""

    error: ErrorObject


class Health(Body, frozen=True):
    """What a probe is told."""

    status: Readiness


class Model(Body, frozen=True):
    """One model."""

    id: str
    object: Literal["model"]
    created: Count
    owned_by: str
    engine: str
    context_length: Count | None
    ready: bool


class Models(Body, frozen=True):
    """All models."""

    object: Literal["list"]
    data: tuple[Model, ...]


class CancelledRequest(Body, frozen=True):
    """Whether a request of that id ran."""

    id: str
    object: Literal["request"]
    cancelled: bool


# --- for operators


class Status(Body, frozen=True):
    """The server in short."""

    version: str
    readiness: Readiness
    has_started: bool
    uptime_s: Annotated[float, Meta(ge=0)]
    queued: Count
    models: dict[str, bool]
    workers: dict[str, Count]
    breakers: tuple[BreakerView, ...]
    gpus: tuple[GpuView, ...]
    disks: tuple[DiskView, ...]


class Workers(Body, frozen=True):
    """Each slot, with its worker."""

    workers: tuple[WorkerView, ...]
    queued: Count
    gpus: tuple[GpuView, ...]
    disks: tuple[DiskView, ...]


class AskedOfWorker(Body, frozen=True):
    """What was asked of the worker of a slot; it is under way."""

    slot: str
    asked: Literal["restart", "stop", "reset"]


class Crashes(Body, frozen=True):
    """The crash reports that are kept."""

    crashes: tuple[CrashView, ...]


# --- keys


class Permission(Body, frozen=True):
    """What one's own credential may do."""

    actor: str
    role: Role
    models: tuple[str, ...] | None
    limits: Limits
    expires: Time | None
    rights: tuple[str, ...]


class KeyEntry(Body, frozen=True):
    """An API key, without what opens anything."""

    id: KeyId
    object: Literal["key"]
    name: str
    fingerprint: str
    role: Role
    models: tuple[str, ...] | None
    limits: Limits
    created: Time
    expires: Time | None
    revoked: Time | None
    revoked_for: str | None


class NewKey(KeyEntry, frozen=True):
    """An API key that was just made. It is not shown again."""

    key: str


class Keys(Body, frozen=True):
    """All API keys."""

    keys: tuple[KeyEntry, ...]
    store: Literal["ok", "unavailable", "replaced"]


class RevokedKey(Body, frozen=True):
    """An API key that opens nothing any more."""

    id: KeyId
    object: Literal["key"]
    revoked: Literal[True]


class Revocation(Body, frozen=True):
    """A JWT that is not taken any more."""

    jti: Annotated[str, Meta(pattern=f"^{JTI}$")]
    object: Literal["revocation"]
    expires: Time


class Revocations(Body, frozen=True):
    """All JWTs that were revoked and would be good by themselves."""

    revocations: tuple[Revocation, ...]


# --- completions


class TokenUsage(Body, frozen=True):
    """Tokens of one request."""

    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count
    failovers: Count | UnsetType = UNSET


class ChatToken(Body, frozen=True):
    """How likely a token was. ``bytes`` tells half a character apart."""

    token: str
    logprob: float
    bytes: tuple[Annotated[int, Meta(ge=0, le=255)], ...]


class ChatTokenChosen(ChatToken, frozen=True):
    """How likely the chosen token was, and the likeliest."""

    top_logprobs: tuple[ChatToken, ...]


class ChatLogprobs(Body, frozen=True):
    """Logprobs of a chat."""

    content: tuple[ChatTokenChosen, ...]
    refusal: None


class ChatMessage(Body, frozen=True):
    """What the model answered."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(Body, frozen=True):
    """One answer of a chat."""

    index: Count
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class ChatCompletion(Body, frozen=True):
    """A whole answer to a conversation."""

    id: str
    object: Literal["chat.completion"]
    created: Count
    model: str
    choices: tuple[ChatChoice, ...]
    usage: TokenUsage


class ChatDelta(Body, frozen=True):
    """More of an answer."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET


class ChatChunkChoice(Body, frozen=True):
    """More of one answer of a chat."""

    index: Count
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None


class ChatChunk(Body, frozen=True):
    """One event of a streamed chat."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: Count
    model: str
    choices: tuple[ChatChunkChoice, ...]
    usage: TokenUsage | UnsetType | None = UNSET


class TextLogprobs(Body, frozen=True):
    """Logprobs of a completion."""

    tokens: tuple[str, ...]
    token_logprobs: tuple[float, ...]
    top_logprobs: tuple[dict[str, float], ...] | None
    text_offset: tuple[Count, ...]


class TextChoice(Body, frozen=True):
    """One completion, or more of it."""

    index: Count
    text: str
    logprobs: TextLogprobs | None
    finish_reason: FinishReason | None


class Completion(Body, frozen=True):
    """A whole completion, or one event of a streamed one."""

    id: str
    object: Literal["text_completion"]
    created: Count
    model: str
    choices: tuple[TextChoice, ...]
    usage: TokenUsage | UnsetType | None = UNSET
