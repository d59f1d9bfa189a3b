"""Bodies that are too large or too slow, deadlines, and clients that go or do not read."""

import contextlib
import gc
import json
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from starlette.types import Message
from trio.testing import MockClock

from rbee.config import ServerConfig
from rbee.errors import ErrorCode, RequestError
from rbee.supervisor.api.request_body import BodyReader
from rbee.supervisor.api.visit import Visit
from tests.api.face import CHAT, COMPLETION, NOW_UNIX_S, Exchange, Face

PATH = "/v1/chat/completions"
RAW = json.dumps(CHAT).encode()

# --- bodies


async def test_a_body_over_the_limit_is_refused_by_its_length_or_by_its_bytes() -> None:
    face = Face(body_bytes_max=1024)
    by_length = await face.request("POST", PATH, b"", headers={"content-length": "1025"})
    by_bytes = await face.request("POST", PATH, [b"x" * 600, b"x" * 600, b"never read"])
    by_nonsense = await face.request("POST", PATH, b"", headers={"content-length": "9" * 5000})
    for exchange in (by_length, by_bytes, by_nonsense):
        assert (exchange.status, exchange.error["code"]) == (413, "body_too_large")
        assert exchange.headers["connection"] == "close"
    assert face.generator.asked == []


async def test_a_body_in_parts_up_to_the_limit_is_taken() -> None:
    face = Face(body_bytes_max=1024)
    padded = RAW + b" " * (1024 - len(RAW))
    exchange = Exchange()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_post_parts, face, [padded[:7], padded[7:7], padded[7:]], exchange)
        (await face.generator.wait_asked())[0].push("4", finish="stop")
    assert exchange.status == 200


async def _post_parts(face: Face, parts: list[bytes], exchange: Exchange) -> None:
    await face.request("POST", PATH, parts, exchange=exchange)


async def test_a_large_body_is_parsed_beside_the_loop_and_refused_alike() -> None:
    face = Face()
    large = {**CHAT, "messages": [{"role": "user", "content": "x" * 200_000}], "nope": 1}
    exchange = await face.post(PATH, large)
    assert (exchange.status, exchange.error["code"]) == (400, "unsupported_parameter")
    bomb = await face.request("POST", PATH, b"[" * 1_000_000)
    assert (bomb.status, bomb.error["code"]) == (400, "invalid_json")


@pytest.mark.parametrize("size", [100, 200_000], ids=["in-the-loop", "in-a-thread"])
async def test_a_body_that_is_refused_does_not_wait_for_the_collector(size: int) -> None:
    held: list[weakref.ref[object]] = []

    def refuse(_raw: bytes) -> None:
        beside_the_body = Exchange()
        held.append(weakref.ref(beside_the_body))
        raise RequestError(ErrorCode.INVALID_REQUEST, "none is taken")

    async def receive() -> Message:
        return {"type": "http.request", "body": bytes(size)}

    visit = Visit("POST", {"content-type": ["application/json"]}, "id", 0.0)
    gc.disable()
    try:
        with contextlib.suppress(RequestError):
            await BodyReader(ServerConfig()).read(visit, receive, refuse)
        assert [each() for each in held] == [None]
    finally:
        gc.enable()


async def test_a_body_that_drips_is_given_up(autojump_clock: MockClock) -> None:
    face = Face(body_timeout_s=3.0)
    exchange = Exchange()

    async def drip() -> Message:
        await trio.sleep(1)
        return {"type": "http.request", "body": b" ", "more_body": True}

    await _call(face, drip, exchange)
    assert trio.current_time() == 3
    assert (exchange.status, exchange.error["code"]) == (408, "body_timeout")


async def test_a_client_that_hangs_up_within_its_body_is_not_answered() -> None:
    face = Face()
    exchange = Exchange()

    async def gone() -> Message:
        return {"type": "http.disconnect"}

    await _call(face, gone, exchange)
    assert exchange.status is None
    assert face.log.of("request_done")[0]["outcome"] == "client_gone"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"content-type": "application/json"}, 200),
        ({"content-type": "Application/JSON; charset=UTF-8"}, 200),
        ({"content-encoding": "identity"}, 200),
        ({"content-type": "application/json; charset=utf-16"}, 415),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": ""}, 415),
        ({"content-encoding": "gzip"}, 415),
    ],
)
async def test_a_body_is_json_by_its_headers(headers: dict[str, str], status: int) -> None:
    face = Face()
    async with trio.open_nursery() as nursery:
        exchange = face.start(nursery, PATH, CHAT, headers=headers)
        if status == 200:
            (await face.generator.wait_asked())[0].push("4", finish="stop")
    assert exchange.status == status


# --- deadlines


@pytest.mark.parametrize(
    ("headers", "remaining_s", "told"),
    [
        ({}, 300, "2030-03-17T17:51:40.000Z"),
        ({"x-request-timeout": "2.5"}, 2.5, "2030-03-17T17:46:42.500Z"),
        ({"x-request-timeout": "999999"}, 3600, "2030-03-17T18:46:40.000Z"),
        ({"x-request-timeout": "9" * 400}, 3600, "2030-03-17T18:46:40.000Z"),
        ({"x-request-timeout": "2.50000000000000000"}, 2.5, "2030-03-17T17:46:42.500Z"),
        ({"x-request-deadline": "2030-03-17T17:46:50Z"}, 10, "2030-03-17T17:46:50.000Z"),
        ({"x-request-deadline": "2030-03-17t19:46:50.5+02:00"}, 10.5, "2030-03-17T17:46:50.500Z"),
        (
            {"x-request-deadline": "2030-03-17T17:46:50.123456789Z", "x-request-timeout": "4"},
            4,
            "2030-03-17T17:46:44.000Z",
        ),
    ],
)
async def test_a_client_may_name_its_deadline_and_is_told_the_one_that_holds(
    headers: dict[str, str], remaining_s: float, told: str, autojump_clock: MockClock
) -> None:
    assert NOW_UNIX_S == 1_900_000_000
    face = Face()
    async with trio.open_nursery() as nursery:
        exchange = face.start(nursery, PATH, CHAT, headers=headers)
        [asked] = await face.generator.wait_asked()
        asked.push("4", finish="stop")
    assert asked.remaining_s == pytest.approx(remaining_s, abs=0.01)
    assert exchange.headers["x-request-deadline"] == told


@pytest.mark.parametrize("field", ["X-Request-Timeout", "X-Request-Deadline"])
@pytest.mark.parametrize(
    "value",
    ["", "0", "-1", "1e3", "nan", "inf", " 5", "5 s", "\u0665", "9" * 400 + "s", "tomorrow",
     "2030-03-17", "2030-03-17T17:46:50", "2030-02-31T17:46:50Z"],
)  # fmt: skip
async def test_a_malformed_deadline_is_refused(field: str, value: str) -> None:
    raw = value.encode().decode("latin-1")
    exchange = await Face().post(PATH, CHAT, headers={field: raw})
    assert exchange.status == 400
    assert exchange.error["param"] == field


async def test_both_deadlines_at_fault_are_told_at_once() -> None:
    headers = [("host", "localhost"), ("x-request-timeout", "1"), ("x-request-timeout", "2"),
               ("x-request-deadline", "x")]  # fmt: skip
    exchange = await Face().post(PATH, CHAT, headers=headers)
    fields = [each["field"] for each in exchange.error["details"]]
    assert fields == ["X-Request-Timeout", "X-Request-Deadline"]


@pytest.mark.parametrize("deadline", ["2030-03-17T17:46:39Z", "0001-01-01T00:00:00+14:00"])
async def test_a_deadline_that_has_passed_is_told_before_anything_is_asked(deadline: str) -> None:
    face = Face()
    exchange = await face.post(PATH, CHAT, headers={"x-request-deadline": deadline})
    assert (exchange.status, exchange.error["code"]) == (504, "deadline_exceeded")
    assert exchange.headers["x-request-deadline"] == "2030-03-17T17:46:40.000Z"
    assert face.generator.asked == []


@pytest.mark.parametrize("stream", [False, True])
async def test_no_token_by_the_deadline_is_a_504(stream: bool, autojump_clock: MockClock) -> None:
    face = Face()
    body = {**CHAT, "stream": stream}
    exchange = await face.post(PATH, body, headers={"x-request-timeout": "2"})
    assert trio.current_time() == pytest.approx(2)
    assert (exchange.status, exchange.error["code"]) == (504, "deadline_exceeded")
    assert face.generator.asked[0].cancelled == "deadline_exceeded"


async def test_a_stream_past_its_deadline_ends_with_an_error_event(
    autojump_clock: MockClock,
) -> None:
    face = Face()
    async with trio.open_nursery() as nursery:
        body = {**CHAT, "stream": True}
        exchange = face.start(nursery, PATH, body, headers={"x-request-timeout": "2"})
        [asked] = await face.generator.wait_asked()
        await trio.sleep(1.5)
        asked.push("4")
    assert trio.current_time() == pytest.approx(2)
    assert exchange.status == 200
    assert exchange.events[-1]["error"]["code"] == "deadline_exceeded"
    assert asked.cancelled == "deadline_exceeded"


# --- clients


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("has_begun", [False, True])
async def test_a_client_that_hangs_up_ends_its_request_at_once(
    stream: bool, has_begun: bool
) -> None:
    face = Face()
    async with trio.open_nursery() as nursery:
        exchange = face.start(nursery, PATH, {**CHAT, "stream": stream, "n": 2})
        first, second = await face.generator.wait_asked(2)
        if has_begun:
            first.push("4")
        await trio.testing.wait_all_tasks_blocked()
        exchange.hang_up.set()
        with trio.fail_after(0.2):
            assert await face.generator.wait_cancelled(0) == "client_gone"
            assert await face.generator.wait_cancelled(1) == "client_gone"
    second.push("late")
    assert face.log.of("request_done")[0]["outcome"] == "client_gone"


async def test_a_client_that_does_not_read_is_cut_off_when_too_much_is_parked() -> None:
    face = Face(parked_bytes_max=4096)
    exchange = _Stuck()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_start, face, exchange)
        [asked] = await face.generator.wait_asked()
        asked.push("first")
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(100):
            asked.push("x" * 100)
        assert asked.cancelled == "slow_client"
        exchange.reads.set()
    assert exchange.events[-1]["error"]["code"] == "slow_client"
    assert len(exchange.body) < 2 * 4096
    assert face.log.of("request_done")[0]["outcome"] == "slow_client"


async def _start(face: Face, exchange: Exchange) -> None:
    await face.post(PATH, {**CHAT, "stream": True}, exchange=exchange)


class _Stuck(Exchange):
    """A client that reads nothing for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = trio.Event()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            await self.reads.wait()
        await super().send(message)


# --- the direct way


class _Direct:
    """A direct writer as the HTTP server has it."""

    def __init__(self, exchange: Exchange) -> None:
        self.on_broken: Callable[[str], object] | None = None
        self.is_drained = False
        self._exchange = exchange

    def write_nowait(self, payload: bytes) -> None:
        assert self._exchange.status is not None, "written before the headers"
        assert not self._exchange.is_complete, "written after the end"
        self._exchange.body += payload

    async def drain(self) -> None:
        await trio.lowlevel.checkpoint()
        self.is_drained = True


async def _start_direct(face: Face, exchange: Exchange, direct: _Direct) -> None:
    body = {**COMPLETION, "stream": True}
    extensions = {"rbee.direct": direct}
    await face.post("/v1/completions", body, exchange=exchange, extensions=extensions)


async def test_tokens_go_to_the_socket_while_the_requests_task_sleeps() -> None:
    face, exchange = Face(), Exchange()
    direct = _Direct(exchange)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_start_direct, face, exchange, direct)
        [asked] = await face.generator.wait_asked()
        asked.push("1")
        asked.push(" 2")
        await trio.testing.wait_all_tasks_blocked()
        for number in range(3, 6):
            before = len(exchange.body)
            asked.push(f" {number}")  # no await between this and the next line
            assert len(exchange.body) > before
        asked.push(" 6", finish="stop")
    assert "".join(each["choices"][0]["text"] for each in exchange.events) == "1 2 3 4 5 6"
    assert direct.is_drained
    assert exchange.is_complete


@pytest.mark.parametrize(
    ("reason", "outcome"), [("slow_client", "slow_client"), ("disconnected", "client_gone")]
)
async def test_a_broken_writer_cancels_the_request_on_the_spot(reason: str, outcome: str) -> None:
    face, exchange = Face(), Exchange()
    direct = _Direct(exchange)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_start_direct, face, exchange, direct)
        [asked] = await face.generator.wait_asked()
        asked.push("1")
        await trio.testing.wait_all_tasks_blocked()
        assert direct.on_broken is not None
        direct.on_broken(reason)
        assert asked.cancelled == outcome
    assert face.log.of("request_done")[0]["outcome"] == outcome


async def test_a_failure_between_first_delta_and_headers_still_has_its_status() -> None:
    face, exchange = Face(), Exchange()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_start_direct, face, exchange, _Direct(exchange))
        [asked] = await face.generator.wait_asked()
        asked.push("1")
        asked.fail(RequestError(ErrorCode.WORKER_FAILED, "the worker ended"))
    assert (exchange.status, exchange.error["code"]) == (503, "worker_failed")
    assert exchange.headers["retry-after"] == "1"


async def _call(face: Face, receive: Any, exchange: Exchange) -> None:
    scope = {
        "type": "http",
        "method": "POST",
        "path": PATH,
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
    }
    await face.app(scope, receive, exchange.send)
