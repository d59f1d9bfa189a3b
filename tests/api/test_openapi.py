"""The OpenAPI document: complete, and true of what requests are held to and of real answers."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import jsonschema_rs
import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from rbee.ask import TokenLogprob
from rbee.errors import ErrorCode, RequestError
from rbee.supervisor.api.chat_body import CHAT_SCHEMA, read_chat
from rbee.supervisor.api.completion_body import COMPLETION_SCHEMA, read_completion
from rbee.supervisor.api.fields import Schema
from rbee.supervisor.api.openapi import answers, document_json, page_html
from rbee.supervisor.api.openapi.document import make_document, statuses
from rbee.supervisor.api.openapi.operations import NOT_OF_A_ROUTE, OPERATIONS
from rbee.supervisor.api.openapi.page import PAGE_POLICY
from rbee.supervisor.api.problems import PROBLEMS
from rbee.supervisor.api.routing import ByMethod
from tests.api.face import CHAT, COMPLETION, Exchange, Face, every_route
from tests.api.test_bodies import NAMES, VALUES

DOCUMENT = make_document()
CHATS = jsonschema_rs.validator_for(dict(CHAT_SCHEMA))
COMPLETIONS = jsonschema_rs.validator_for(dict(COMPLETION_SCHEMA))


# --- it is complete


async def test_every_route_is_described_and_no_other() -> None:
    real = set()
    for route in every_route():
        assert isinstance(route.app, ByMethod)
        methods = set(route.app.allow.split(", ")) - {"HEAD", "OPTIONS"}
        real |= {(method, route.path.replace(":path", "")) for method in methods}
    assert {(each.method, each.path) for each in OPERATIONS} == real
    assert len(OPERATIONS) == len(real) == len({each.id for each in OPERATIONS})


def test_every_error_of_the_catalogue_is_an_answer_of_some_route() -> None:
    told = {
        code for each in OPERATIONS for codes in statuses(each).values() for code in codes
    }  # fmt: skip
    assert told == set(ErrorCode) - NOT_OF_A_ROUTE


def test_every_operation_tells_every_status_that_it_may_answer() -> None:
    for each in OPERATIONS:
        told = DOCUMENT["paths"][each.path][each.method.lower()]["responses"]
        expected = {str(status) for status in {*each.answers, *statuses(each)}}
        assert set(told) == expected
        for code in each.codes:
            response = told[str(PROBLEMS[code].status)]
            assert f"`{code.value}`" in response["description"]


def test_every_operation_tells_who_may_use_it() -> None:
    for each in OPERATIONS:
        told = DOCUMENT["paths"][each.path][each.method.lower()]
        assert (told["description"] == "Open to everybody.") == (told["security"] == [])


def test_every_reference_leads_somewhere() -> None:
    for ref in set(re.findall(r'"\$ref":"#/([^"]+)"', document_json().decode())):
        place: Any = DOCUMENT
        for name in ref.split("/"):
            place = place[name]


def test_every_list_string_and_number_of_a_body_has_a_bound() -> None:
    bounds = {
        "string": ("maxLength", "enum", "const"),
        "array": ("maxItems",),
        "integer": ("maximum",),
        "number": ("maximum",),
    }

    def walk(schema: Any) -> None:
        if isinstance(schema, Mapping):
            kind = schema.get("type")
            if isinstance(kind, str) and kind in bounds:
                assert any(bound in schema for bound in bounds[kind]), schema
            for each in schema.values():
                walk(each)
        elif isinstance(schema, list):
            for each in schema:
                walk(each)

    for schema in (CHAT_SCHEMA, COMPLETION_SCHEMA):
        walk(schema)


# --- it is true of bodies


def test_good_bodies_fit_their_schema() -> None:
    for body in (
        CHAT,
        {**CHAT, "stop": "x", "logit_bias": {"5": 1}, "response_format": {"type": "json_object"},
         "temperature": None, "user": {"any": "thing"}, "tools": [], "tool_choice": "auto"},
    ):  # fmt: skip
        read_chat(json.dumps(body).encode())
        assert CHATS.is_valid(body)
    for prompt in ("a", ["a", "b"], [1, 2], [[1], [2, 3]]):
        body = {**COMPLETION, "prompt": prompt}
        read_completion(json.dumps(body).encode())
        assert COMPLETIONS.is_valid(body)


@given(st.dictionaries(NAMES, VALUES, max_size=4), st.booleans())
def test_what_does_not_fit_the_schema_is_refused(fields: dict[str, object], has_base: bool) -> None:
    for read, validator, base in (
        (read_chat, CHATS, CHAT),
        (read_completion, COMPLETIONS, COMPLETION),
    ):
        body = {**base, **fields} if has_base else fields
        try:
            raw = json.dumps(body, ensure_ascii=False).encode()
            read(raw)
        except (RequestError, UnicodeEncodeError):
            continue
        assert validator.is_valid(json.loads(raw))


# --- it is true of answers


def decode(exchange: Exchange, type_: type) -> Any:
    return msgspec.json.decode(exchange.body, type=type_)


@pytest.mark.parametrize(
    ("method", "path", "status", "type_"),
    [
        ("GET", "/health/live", 200, answers.Health),
        ("GET", "/health/ready", 200, answers.Health),
        ("GET", "/v1/models", 200, answers.Models),
        ("GET", "/v1/models/org/large", 200, answers.Model),
        ("GET", "/v1/models/none", 404, answers.Error),
        ("DELETE", "/v1/requests/none", 200, answers.CancelledRequest),
        ("GET", "/v1/rbee/status", 200, answers.Status),
        ("GET", "/v1/rbee/workers", 200, answers.Workers),
        ("POST", "/v1/rbee/workers/bee-tiny-0/reset", 202, answers.AskedOfWorker),
        ("GET", "/v1/rbee/crashes", 200, answers.Crashes),
        ("POST", "/v1/chat/completions", 400, answers.Error),
    ],
)
async def test_answers_are_of_the_type_that_is_told(
    method: str, path: str, status: int, type_: type
) -> None:
    exchange = await Face().request(method, path)
    assert exchange.status == status
    assert decode(exchange, type_)


LOGPROB = TokenLogprob(3, b"a", -0.5, ((3, b"a", -0.5), (4, b"\xe2", -1.5)))


async def answered(path: str, body: object) -> Exchange:
    face = Face()
    async with trio.open_nursery() as nursery:
        exchange = face.start(nursery, path, body)
        [asked] = await face.generator.wait_asked()
        asked.push("a", logprobs=(LOGPROB,))
        asked.push("", finish="stop", logprobs=(LOGPROB,))
    return exchange


@pytest.mark.parametrize("more", [{}, {"logprobs": True, "top_logprobs": 2}])
async def test_chats_are_of_the_types_that_are_told(more: Schema) -> None:
    whole = await answered("/v1/chat/completions", {**CHAT, **more})
    assert decode(whole, answers.ChatCompletion).choices[0].message.content == "a"
    options = {"stream": True, "stream_options": {"include_usage": True}}
    streamed = await answered("/v1/chat/completions", {**CHAT, **more, **options})
    chunks = [msgspec.convert(each, answers.ChatChunk) for each in streamed.events]
    assert chunks[-1].usage


@pytest.mark.parametrize("more", [{}, {"logprobs": 0}, {"logprobs": 2}])
async def test_completions_are_of_the_types_that_are_told(more: Schema) -> None:
    whole = await answered("/v1/completions", {**COMPLETION, **more})
    assert decode(whole, answers.Completion).choices[0].text == "a"
    options = {"stream": True, "stream_options": {"include_usage": True}}
    streamed = await answered("/v1/completions", {**COMPLETION, **more, **options})
    chunks = [msgspec.convert(each, answers.Completion) for each in streamed.events]
    assert chunks[-1].usage


# --- how it is served


async def test_the_document_is_served_as_the_command_prints_it() -> None:
    exchange = await Face().request("GET", "/openapi.json")
    assert exchange.headers["content-type"] == "application/json"
    assert exchange.body == document_json()
    assert exchange.json["openapi"] == "3.1.0"


async def test_the_page_loads_and_runs_nothing() -> None:
    exchange = await Face().request("GET", "/docs")
    assert exchange.headers["content-type"] == "text/html; charset=utf-8"
    assert exchange.headers["content-security-policy"] == PAGE_POLICY
    page = page_html().decode()
    assert exchange.body.decode() == page
    assert not re.search(r"<script|<link|<img|<iframe|\bon\w+=|src=|url\(|style=", page)
    style = page.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in PAGE_POLICY
    assert set(re.findall(r'href="([^"]*)"', page)) == {"/openapi.json"}
    for each in OPERATIONS:
        assert each.path in page


# --- queries


async def test_a_query_is_refused_by_its_names_where_none_is_taken() -> None:
    face = Face()
    path = "/v1/rbee/status"
    exchange = await face.request("GET", path, query=b"verbose=1&a%20b=secret&limit")
    assert (exchange.status, exchange.error["code"]) == (400, "unsupported_parameter")
    named = [each["field"] for each in exchange.error["details"]]
    assert named == ["verbose", "(a query)", "limit"]
    assert b"secret" not in exchange.body
    probe = await face.request("GET", "/health/ready", query=b"verbose")
    assert probe.status == 200
