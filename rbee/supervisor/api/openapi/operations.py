"""What each route does, takes and answers: one entry for each method and path."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from rbee.errors import ErrorCode
from rbee.ids import CORRELATION_ID, WORKER_ID
from rbee.supervisor.access.api_key import KEY_ID
from rbee.supervisor.api.admission import CORRELATION_HEADER
from rbee.supervisor.api.chat_body import CHAT_SCHEMA
from rbee.supervisor.api.completion_body import COMPLETION_SCHEMA
from rbee.supervisor.api.deadlines import DEADLINE_HEADER, DEADLINE_SCHEMA, TIMEOUT_HEADER
from rbee.supervisor.api.deadlines import TIMEOUT_SCHEMA as TIMEOUT
from rbee.supervisor.api.fields import Schema
from rbee.supervisor.api.key_body import ORDER_SCHEMA, ROTATION_SCHEMA
from rbee.supervisor.api.openapi import answers
from rbee.supervisor.api.parameters import MODEL_SCHEMA
from rbee.supervisor.api.revocation_body import REVOCATION_SCHEMA


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a request says outside of its body."""

    name: str
    place: str  # "path", "header"
    schema: Schema
    description: str


@dataclass(frozen=True, slots=True)
class Content:
    """What is in an answer that is not of the JSON types of `answers`."""

    media_type: str
    schema: Schema


@dataclass(frozen=True, slots=True)
class Events:
    """A stream of server-sent events, each with JSON of one type; the last is ``[DONE]``."""

    type: type


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one route."""

    method: str
    path: str
    id: str
    group: str
    summary: str
    answers: Mapping[int, tuple[type | Content | Events, ...]]
    codes: frozenset[ErrorCode] = frozenset()  # that it may answer with, beside `OF_ALL_ROUTES`
    body: Schema | None = None
    parameters: tuple[Parameter, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)  # of a good answer: what they tell


# What the guard refuses, whatever the route.
OF_ALL_ROUTES: Final = frozenset(
    {
        ErrorCode.INVALID_REQUEST, ErrorCode.FORBIDDEN_HOST, ErrorCode.FORBIDDEN_ORIGIN,
        ErrorCode.INTERNAL_ERROR,
    }
)  # fmt: skip
# What whoever is not let in is told, on every route but those that are open to all.
OF_KEYED_ROUTES: Final = frozenset(
    {
        ErrorCode.INVALID_API_KEY, ErrorCode.AUTHENTICATION_THROTTLED, ErrorCode.PERMISSION_DENIED,
        ErrorCode.JWT_UNAVAILABLE,
    }
)  # fmt: skip
# What is refused before a route is known: a head that is too long, a connection too many.
BEFORE_ROUTES: Final[Mapping[int, frozenset[ErrorCode]]] = {
    414: frozenset({ErrorCode.INVALID_REQUEST}),
    431: frozenset({ErrorCode.INVALID_REQUEST}),
    503: frozenset({ErrorCode.QUEUE_FULL}),
}
# What no answer over HTTP has: no route has these, or nobody is left to read it.
NOT_OF_A_ROUTE: Final = frozenset(
    {
        ErrorCode.METHOD_NOT_ALLOWED, ErrorCode.SLOW_CLIENT,
    }
)  # fmt: skip

_QUERY: Final = frozenset({ErrorCode.UNSUPPORTED_PARAMETER})
_GENERATES: Final = _QUERY | {
    ErrorCode.INVALID_JSON, ErrorCode.CONTEXT_LENGTH_EXCEEDED, ErrorCode.MODEL_NOT_FOUND,
    ErrorCode.BODY_TIMEOUT, ErrorCode.BODY_TOO_LARGE, ErrorCode.UNSUPPORTED_MEDIA_TYPE,
    ErrorCode.REQUEST_QUARANTINED, ErrorCode.QUEUE_FULL, ErrorCode.MODEL_UNAVAILABLE,
    ErrorCode.DRAINING, ErrorCode.WORKER_FAILED, ErrorCode.ENGINE_FAILED, ErrorCode.CANCELLED,
    ErrorCode.DEADLINE_EXCEEDED, ErrorCode.RATE_LIMITED,
}  # fmt: skip
_CHANGES_KEYS: Final = _QUERY | {ErrorCode.STORE_UNAVAILABLE, ErrorCode.AUDIT_UNAVAILABLE}
_TAKES_BODY: Final = frozenset(
    {
        ErrorCode.INVALID_JSON, ErrorCode.BODY_TIMEOUT, ErrorCode.BODY_TOO_LARGE,
        ErrorCode.UNSUPPORTED_MEDIA_TYPE,
    }
)  # fmt: skip

CORRELATION: Final = Parameter(
    CORRELATION_HEADER,
    "header",
    {"type": "string", "pattern": f"^{CORRELATION_ID.pattern}$"},
    "Names the request in its answer and in the log; made if absent.",
)
_DEADLINES: Final = (
    Parameter(TIMEOUT_HEADER, "header", TIMEOUT, "Seconds that the answer may take."),
    Parameter(DEADLINE_HEADER, "header", DEADLINE_SCHEMA, "When the answer must be there."),
)
_SLOT: Final = Parameter(
    "slot",
    "path",
    {"type": "string", "pattern": f"^{WORKER_ID.pattern}$"},
    "A slot that GET /v1/rbee/workers lists.",
)

_KEY: Final = Parameter(
    "id",
    "path",
    {"type": "string", "pattern": f"^{KEY_ID.pattern}$"},
    "A key that GET /v1/rbee/keys lists.",
)

# Any type of JSON: a crash report is written by one version and read by others.
_ANY_OBJECT: Final[Schema] = {"type": "object"}
_TEXT: Final[Schema] = {"type": "string"}
_HTML: Final = Content("text/html", _TEXT)


def _generation(path: str, name: str, summary: str, body: Schema, *types: type) -> Operation:
    whole, chunk = types
    return Operation(
        "POST", path, name, "inference", summary, {200: (whole, Events(chunk))}, _GENERATES,
        body, _DEADLINES,
        {DEADLINE_HEADER: "The deadline that holds.",
         "X-Rbee-Failovers": "How often the answer went on at another worker, where it did."},
    )  # fmt: skip


def _probe(name: str, summary: str) -> Operation:
    told = dict.fromkeys((200, 503), (answers.Health,))
    return Operation("GET", f"/health/{name}", f"health_{name}", "health", summary, told)


def _read(path: str, name: str, group: str, summary: str, answer: type | Content) -> Operation:
    return Operation("GET", path, name, group, summary, {200: (answer,)}, _QUERY)


def _act(what: str, summary: str) -> Operation:
    return Operation(
        "POST", f"/v1/rbee/workers/{{slot}}/{what}", f"{what}_worker", "operators", summary,
        {202: (answers.AskedOfWorker,)}, _QUERY | {ErrorCode.WORKER_NOT_FOUND}, None, (_SLOT,),
    )  # fmt: skip


OPERATIONS: Final = (
    _generation(
        "/v1/chat/completions", "create_chat_completion", "Answers a conversation", CHAT_SCHEMA,
        answers.ChatCompletion, answers.ChatChunk,
    ),
    _generation(
        "/v1/completions", "create_completion", "Goes on with a text", COMPLETION_SCHEMA,
        answers.Completion, answers.Completion,
    ),
    _read("/v1/models", "list_models", "models", "The models", answers.Models),
    Operation(
        "GET", "/v1/models/{name}", "show_model", "models", "One model",
        {200: (answers.Model,)}, _QUERY | {ErrorCode.MODEL_NOT_FOUND}, None,
        (Parameter("name", "path", MODEL_SCHEMA, "It may hold slashes."),),
    ),
    Operation(
        "DELETE", "/v1/requests/{id}", "cancel_request", "requests",
        "Ends the requests of that id", {200: (answers.CancelledRequest,)}, _QUERY, None,
        (Parameter("id", "path", CORRELATION.schema, "An answer's id, or an X-Correlation-ID."),),
    ),
    _probe("live", "200 while the process answers"),
    _probe("ready", "200 while each model has a worker"),
    _probe("startup", "200 once each slot was ready or has failed for good"),
    _read("/v1/rbee/status", "show_status", "operators", "The server in short", answers.Status),
    _read("/v1/rbee/workers", "list_workers", "operators", "Slots, workers", answers.Workers),
    _act("restart", "Drains and replaces a worker; fills its slot again if it is empty"),
    _act("stop", "Drains and stops a worker; its slot stays empty until it is restarted"),
    _act("reset", "Forgets a slot's failures; fills it now if it waits or has failed"),
    _read("/v1/rbee/crashes", "list_crashes", "operators", "Crash reports", answers.Crashes),
    Operation(
        "GET", "/v1/rbee/crashes/{crash}", "show_crash", "operators", "One crash report",
        {200: (Content("application/json", _ANY_OBJECT),)}, _QUERY | {ErrorCode.NOT_FOUND}, None,
        (Parameter("crash", "path", {"type": "string", "maxLength": 256}, "Its id."),),
    ),
    _read("/v1/auth/permission", "show_permission", "keys", "What one's own key may do",
          answers.Permission),
    _read("/v1/rbee/keys", "list_keys", "keys", "All keys", answers.Keys),
    Operation(
        "POST", "/v1/rbee/keys", "create_key", "keys", "Makes a key", {201: (answers.NewKey,)},
        _CHANGES_KEYS | _TAKES_BODY, ORDER_SCHEMA,
    ),
    Operation(
        "DELETE", "/v1/rbee/keys/{id}", "revoke_key", "keys", "Revokes a key; what it runs ends",
        {200: (answers.RevokedKey,)}, _CHANGES_KEYS | {ErrorCode.KEY_NOT_FOUND}, None, (_KEY,),
    ),
    Operation(
        "POST", "/v1/rbee/keys/{id}/rotate", "rotate_key", "keys", "Puts a key in another's place",
        {201: (answers.NewKey,)}, _CHANGES_KEYS | _TAKES_BODY | {ErrorCode.KEY_NOT_FOUND},
        ROTATION_SCHEMA, (_KEY,),
    ),
    Operation(
        "GET", "/v1/rbee/revocations", "list_revocations", "keys", "JWTs that were revoked",
        {200: (answers.Revocations,)}, _QUERY | {ErrorCode.NOT_FOUND},
    ),
    Operation(
        "POST", "/v1/rbee/revocations", "revoke_jwt", "keys", "Revokes a JWT; what it runs ends",
        {201: (answers.Revocation,)}, _CHANGES_KEYS | _TAKES_BODY | {ErrorCode.NOT_FOUND},
        REVOCATION_SCHEMA,
    ),
    Operation(
        "GET", "/metrics", "show_metrics", "operators", "For Prometheus; OpenMetrics if accepted",
        {200: (Content("text/plain", _TEXT), Content("application/openmetrics-text", _TEXT))},
        _QUERY,
    ),
    _read("/openapi.json", "show_openapi", "description", "This document",
          Content("application/json", _ANY_OBJECT)),
    _read("/docs", "show_docs", "description", "This document, to be read", _HTML),
)  # fmt: skip
