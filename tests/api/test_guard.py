"""What every request passes: who may come in, how routes answer, and what stands in the log."""

import json
from typing import Any

import pytest
import trio
from starlette.types import Receive, Scope, Send

from rbee.config import ServerConfig
from rbee.errors import ErrorCode, RequestError
from rbee.ids import is_correlation_id
from rbee.supervisor.api.admission import check_origin
from rbee.supervisor.api.asgi import AsgiFace
from rbee.supervisor.api.guard import Guard
from rbee.supervisor.api.routing import ByMethod
from tests.api.face import CHAT, Exchange, Face, LogLines, every_route

CHAT_PATH = "/v1/chat/completions"


def all_routes() -> list[tuple[str, str]]:
    """Method and path of every route that the face has."""
    found = []
    for route in every_route():
        assert isinstance(route.app, ByMethod)
        path = route.path.replace("{slot}", "bee-tiny-0").replace("{name:path}", "bee-tiny")
        found += [(method, path) for method in route.app.allow.split(", ")]
    return found


async def test_every_route_refuses_a_foreign_host_and_a_foreign_origin() -> None:
    routes = all_routes()
    assert ("POST", CHAT_PATH) in routes
    assert len({path for _, path in routes}) == 23
    for method, path in [*routes, ("GET", "/no/such/route")]:
        face = Face()
        exchange = await face.request(method, path, headers={"host": "evil.example"})
        assert exchange.status == 403, (method, path)
        if method != "HEAD":
            assert exchange.error["code"] == "forbidden_host"
        origin = {"host": "localhost:7233", "origin": "http://evil.example"}
        exchange = await face.request(method, path, headers=origin)
        assert exchange.status == 403, (method, path)
        if method != "HEAD":
            assert exchange.error["code"] == "forbidden_origin"
        assert face.operations.asked == []
        assert face.generator.asked == []


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:1", "127.0.0.1", "127.1.2.3:80", "[::1]", "[::1]:7233", "box.lan",
     "box.lan:7233", "only.lan:1"],
)  # fmt: skip
async def test_names_of_loopback_and_allowed_hosts_come_in(host: str) -> None:
    face = Face(allowed_hosts=("Box.lan", "only.lan:1"))
    exchange = await face.request("GET", "/health/live", headers={"host": host})
    assert exchange.status == 200


@pytest.mark.parametrize(
    "hosts",
    [[], ["localhost", "localhost"], [""], ["evil.example"], ["localhost.evil.example"],
     ["127.0.0.1.evil.example"], ["evil.example:80@localhost"], ["localhost/x"], ["localhost:x"],
     ["128.0.0.1"], ["0.0.0.0"], ["[::]"], ["[::ffff:10.0.0.1]"], ["::1"], ["localhost:7233 "],
     ["only.lan"], ["2130706433"], ["localhost\x00"],
     ["l\u043ecalhost".encode().decode("latin-1")]],
)  # fmt: skip
async def test_other_hosts_stay_out(hosts: list[str]) -> None:
    face = Face(allowed_hosts=("only.lan:1",))
    headers = [("host", each) for each in hosts]
    exchange = await face.request("GET", "/health/live", headers=headers)
    assert exchange.status == 403


@pytest.mark.parametrize(
    ("host", "origin", "is_ours"),
    [
        ("localhost:7233", "http://localhost:7233", True),
        ("[::1]:7233", "http://[::1]:7233", True),
        ("localhost", "http://localhost:80", True),
        ("localhost", "https://LOCALHOST", True),
        ("localhost:7233", "http://localhost:3000", False),
        ("localhost:7233", "http://127.0.0.1:7233", False),
        ("localhost:7233", "null", False),
        ("localhost:7233", "", False),
        ("localhost:7233", "file://", False),
        ("localhost:7233", "http://evil.example:7233", False),
        ("localhost:7233", "http://localhost:7233@evil.example", False),
        ("localhost:7233", "http://localhost:7233/", False),
    ],
)
async def test_pages_of_this_server_alone_may_call_it(
    host: str, origin: str, is_ours: bool
) -> None:
    headers = {"host": host, "origin": origin}
    exchange = await Face().request("GET", "/v1/models", headers=headers)
    assert exchange.status == (200 if is_ours else 403)


async def test_a_correlation_id_is_kept_or_made() -> None:
    face = Face()
    given = await face.request("GET", "/v1/models", headers={"X-Correlation-ID": "job-7.a_B"})
    assert given.headers["x-correlation-id"] == "job-7.a_B"
    made = await face.request("GET", "/v1/models")
    assert is_correlation_id(made.headers["x-correlation-id"])
    assert [each["correlation_id"] for each in face.log.of("request_done")] == [
        "job-7.a_B",
        made.headers["x-correlation-id"],
    ]


@pytest.mark.parametrize("values", [[""], ["a b"], ["x" * 65], ["a", "a"], ["a\r\nset-cookie: x"]])
async def test_a_malformed_correlation_id_is_refused_under_a_fresh_one(values: list[str]) -> None:
    headers = [("host", "localhost"), *(("x-correlation-id", each) for each in values)]
    exchange = await Face().request("GET", "/v1/models", headers=headers)
    assert exchange.status == 400
    assert exchange.error["param"] == "X-Correlation-ID"
    assert exchange.error["correlation_id"] == exchange.headers["x-correlation-id"]
    assert is_correlation_id(exchange.headers["x-correlation-id"])
    assert exchange.headers["x-correlation-id"] not in values


async def test_what_is_no_route_or_no_method_has_the_one_shape() -> None:
    face = Face()
    for path in ("/", "/v1", "/v1/models/", "/v1/rbee/workers/a/b/restart", "/health/ready/"):
        exchange = await face.request("GET", path)
        if exchange.error["code"] == "model_not_found":
            assert path == "/v1/models/"
        else:
            assert (exchange.status, exchange.error["code"]) == (404, "not_found")
    exchange = await face.request("DELETE", "/v1/models")
    assert (exchange.status, exchange.error["code"]) == (405, "method_not_allowed")
    assert exchange.headers["allow"] == "GET, HEAD, OPTIONS"
    assert set(exchange.error) == {
        "message", "type", "code", "param", "details", "correlation_id",
    }  # fmt: skip


async def test_head_is_get_without_a_body_and_options_names_methods() -> None:
    face = Face()
    get = await face.request("GET", "/v1/models")
    head = await face.request("HEAD", "/v1/models")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"]
    options = await face.request("OPTIONS", CHAT_PATH)
    assert (options.status, options.headers["allow"]) == (204, "OPTIONS, POST")
    assert not any(name.startswith("access-control") for name in options.headers)


async def test_a_bug_is_one_500_and_a_place_in_the_log() -> None:
    log = LogLines()

    async def buggy(scope: Scope, receive: Receive, send: Send) -> None:
        async with trio.open_nursery():
            raise ValueError("the prompt is hunter2")

    guard = AsgiFace(buggy, Guard(ServerConfig(), log))
    exchange = Exchange()
    await guard(_scope(), _nothing, exchange.send)
    assert exchange.status == 500
    assert exchange.error["code"] == "internal_error"
    [line] = log.of("request_failed")
    assert line["correlation_id"] == exchange.error["correlation_id"]
    assert line["error"] == "builtins.ValueError"
    assert "test_guard.py" in line["traceback"]
    assert "hunter2" not in json.dumps([exchange.body.decode(), log.lines])


async def test_a_bug_after_the_answers_start_leaves_the_answer_without_an_end() -> None:
    log = LogLines()

    async def buggy(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ValueError

    exchange = Exchange()
    await AsgiFace(buggy, Guard(ServerConfig(), log))(_scope(), _nothing, exchange.send)
    assert exchange.status == 200
    assert not exchange.is_complete
    assert log.of("request_done")[0]["outcome"] == "internal_error"


async def test_cancelling_passes_through_and_is_told() -> None:
    log = LogLines()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await trio.sleep_forever()

    with trio.CancelScope() as outer:
        outer.cancel(reason="test")
        await AsgiFace(slow, Guard(ServerConfig(), log))(_scope(), _nothing, Exchange().send)
    assert outer.cancelled_caught
    assert log.of("request_done")[0]["outcome"] == "shut_down"


async def test_the_log_has_a_line_for_each_request_and_no_text_of_it() -> None:
    face = Face()
    async with trio.open_nursery() as nursery:
        face.start(nursery, CHAT_PATH, {**CHAT, "n": 2})
        for each in await face.generator.wait_asked(2):
            each.push("hunter2", tokens=3, finish="stop")
    await face.request("GET", "/hunter2")
    await face.request("HUNTER2", "/v1/models")
    chat, nowhere, strange = face.log.of("request_done")
    assert (chat["route"], chat["status"], chat["outcome"]) == (CHAT_PATH, 200, "ok")
    assert (chat["model"], chat["prompt_tokens"], chat["completion_tokens"]) == ("bee-tiny", 7, 6)
    assert (nowhere["route"], nowhere["status"]) == ("none", 404)
    assert (strange["method"], strange["status"]) == ("other", 405)
    assert "hunter2" not in str(face.log.lines).lower()
    assert "2 + 2" not in str(face.log.lines)


async def test_probes_stay_out_of_the_log_of_every_day() -> None:
    face = Face()
    await face.request("GET", "/health/live")
    assert [level for level, _, _ in face.log.lines] == ["debug"]


async def test_a_refusal_after_the_answers_start_is_no_second_answer() -> None:
    async def confused(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RequestError(ErrorCode.QUEUE_FULL, "too late")

    exchange = Exchange()
    with pytest.raises(RequestError):
        await AsgiFace(confused, Guard(ServerConfig(), LogLines()))(
            _scope(), _nothing, exchange.send
        )
    assert exchange.status == 200


async def test_a_websocket_is_closed() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await Face().app({"type": "websocket", "path": "/v1/models", "headers": []}, _nothing, send)
    assert [each["type"] for each in sent] == ["websocket.close"]


def _scope() -> Scope:
    return {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"localhost")]}


async def _nothing() -> Any:
    await trio.sleep_forever()


def test_a_page_of_this_server_is_refused_where_the_host_is_none() -> None:
    with pytest.raises(RequestError) as caught:
        check_origin(["http://localhost"], ["http://localhost"], ())
    assert caught.value.code is ErrorCode.FORBIDDEN_ORIGIN
