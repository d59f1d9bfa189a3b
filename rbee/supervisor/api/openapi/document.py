"""Puts the OpenAPI 3.1 document together. Pure."""

import functools
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from rbee import __version__
from rbee.errors import ErrorCode
from rbee.supervisor.access.rights import LEAST_ROLES, OPEN_PATHS
from rbee.supervisor.api.openapi.answers import Error
from rbee.supervisor.api.openapi.operations import (
    BEFORE_ROUTES,
    CORRELATION,
    OF_ALL_ROUTES,
    OF_KEYED_ROUTES,
    OPERATIONS,
    Content,
    Events,
    Operation,
    Parameter,
)
from rbee.supervisor.api.problems import PROBLEMS, RETRIABLE

_REF: Final = "#/components/schemas/{name}"
_JSON: Final = "application/json"

_HEADERS: Final[dict[str, Any]] = {
    "X-Correlation-ID": {
        "description": "The request's name in the log.",
        "required": True,
        "schema": CORRELATION.schema,
    },
    "Retry-After": {
        "description": "After so many seconds another try may succeed.",
        "schema": {"type": "integer", "minimum": 1},
    },
}

# As the table of rights has them, by the paths of the document.
_ROLES: Final = {
    (method, path.replace(":path", "")): role for (method, path), role in LEAST_ROLES.items()
}


@functools.cache
def document_json() -> bytes:
    """The document, as it is served."""
    return msgspec.json.encode(make_document())


def make_document() -> dict[str, Any]:
    """The document."""
    types = _types()
    refs, components = msgspec.json.schema_components(types, ref_template=_REF)
    schema_of = dict(zip(types, refs, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for each in OPERATIONS:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "rbee",
            "version": __version__,
            "summary": "One supervisor for the LLM workers of one GPU box.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": components,
            "headers": _HEADERS,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "parameters": {CORRELATION.name: _parameter(CORRELATION)},
        },
    }


def statuses(operation: Operation) -> dict[int, frozenset[ErrorCode]]:
    """With which error codes an operation may answer, by status."""
    found = dict(BEFORE_ROUTES)
    keyed = frozenset() if operation.path in OPEN_PATHS else OF_KEYED_ROUTES
    for code in operation.codes | OF_ALL_ROUTES | keyed:
        status = PROBLEMS[code].status
        found[status] = found.get(status, frozenset()) | {code}
    return found


def _types() -> list[type]:
    found: list[type] = [Error]
    for operation in OPERATIONS:
        for contents in operation.answers.values():
            for each in contents:
                of_it = each.type if isinstance(each, Events) else each
                if not isinstance(of_it, Content) and of_it not in found:
                    found.append(of_it)
    return found


def _operation(operation: Operation, schema_of: dict[type, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "description": _who_may(operation),
        "tags": [operation.group],
        "security": [] if operation.path in OPEN_PATHS else [{"key": []}],
        "parameters": [
            *map(_parameter, operation.parameters),
            {"$ref": f"#/components/parameters/{CORRELATION.name}"},
        ],
        "responses": _responses(operation, schema_of),
    }
    if operation.body is not None:
        content = {_JSON: {"schema": operation.body}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _who_may(operation: Operation) -> str:
    if operation.path in OPEN_PATHS:
        return "Open to everybody."
    role = _ROLES[operation.method, operation.path]
    return f"Wants a key of the role `{role}` or above, once there are keys."


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.place == "path",
        "description": parameter.description,
        "schema": parameter.schema,
    }


def _responses(operation: Operation, schema_of: dict[type, Any]) -> dict[str, Any]:
    responses: dict[int, dict[str, Any]] = {}
    for status, contents in operation.answers.items():
        own = {
            name: {"description": text, "schema": {"type": "string"}}
            for name, text in operation.headers.items()
        }
        responses[status] = {
            "description": operation.summary,
            "headers": _headers(status) | own,
            "content": _contents(contents, schema_of),
        }
    for status, codes in statuses(operation).items():
        schema = schema_of[Error]
        if status in operation.answers:  # a probe has a word of its own for it
            own_schema = responses[status]["content"][_JSON]["schema"]
            schema = {"anyOf": [own_schema, schema]}
        responses[status] = {
            "description": _told(codes),
            "headers": _headers(status),
            "content": {_JSON: {"schema": schema}},
        }
    return {str(status): responses[status] for status in sorted(responses)}


def _headers(status: int) -> dict[str, Any]:
    names = ["X-Correlation-ID", *(["Retry-After"] if status in RETRIABLE else [])]
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _contents(
    contents: Iterable[type | Content | Events], schema_of: dict[type, Any]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in contents:
        match each:
            case Content():
                found[each.media_type] = {"schema": each.schema}
            case Events():
                schema = _event_schema(schema_of[each.type], schema_of[Error])
                found["text/event-stream"] = {"schema": schema}
            case _:
                found[_JSON] = {"schema": schema_of[each]}
    return found


def _event_schema(chunk: object, error: object) -> dict[str, Any]:
    """Of one event: so the schema of a stream is read before OpenAPI 3.2."""
    in_json = {"contentMediaType": _JSON, "contentSchema": {"anyOf": [chunk, error]}}
    return {
        "type": "object",
        "description": "One event: JSON on one line. The last is `[DONE]`; before it stands an"
        " error where the answer broke off.",
        "properties": {"data": {"type": "string", "anyOf": [{"const": "[DONE]"}, in_json]}},
        "required": ["data"],
    }


def _told(codes: Iterable[ErrorCode]) -> str:
    return "error code " + " or ".join(f"`{code.value}`" for code in sorted(codes))
