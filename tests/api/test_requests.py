"""Requests that are ended early: on demand, and for want of tokens."""

import pytest
import trio
from trio.testing import MockClock

from rbee.errors import ErrorCode, RequestError
from rbee.supervisor.api.events import DONE, KEEP_ALIVE
from tests.api.face import CHAT, Face

PATH = "/v1/chat/completions"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_is_cancelled_by_its_correlation_id(stream: bool) -> None:
    face = Face()
    async with trio.open_nursery() as nursery:
        body = {**CHAT, "stream": stream, "n": 2}
        exchange = face.start(nursery, PATH, body, headers={"x-correlation-id": "mine"})
        first, second = await face.generator.wait_asked(2)
        answer = await face.request("DELETE", "/v1/requests/mine")
        assert answer.json == {"id": "mine", "object": "request", "cancelled": True}
        assert (first.cancelled, second.cancelled) == ("cancelled", "cancelled")
    assert (exchange.status, exchange.error["code"]) == (410, "cancelled")
    again = await face.request("DELETE", "/v1/requests/mine")
    assert (again.status, again.json["cancelled"]) == (200, False)


async def test_a_stream_is_cancelled_by_the_id_that_its_chunks_tell() -> None:
    face = Face()
    async with trio.open_nursery() as nursery:
        exchange = face.start(nursery, PATH, {**CHAT, "stream": True})
        [asked] = await face.generator.wait_asked()
        asked.push("It")
        await trio.testing.wait_all_tasks_blocked()
        answer_id = exchange.body.split(b'"id":"')[1].split(b'"')[0].decode()
        await face.request("DELETE", f"/v1/requests/{answer_id}")
    assert exchange.events[-1]["error"]["code"] == "cancelled"
    assert face.log.of("request_done")[1]["outcome"] == "cancelled"


async def test_an_id_that_is_none_is_refused_and_one_that_is_unknown_is_not() -> None:
    face = Face()
    wrong = await face.request("DELETE", "/v1/requests/a%20b")
    assert (wrong.status, wrong.error["param"]) == (400, "id")
    unknown = await face.request("DELETE", "/v1/requests/chatcmpl-0")
    assert (unknown.status, unknown.json["cancelled"]) == (200, False)


@pytest.mark.parametrize("stream", [False, True])
async def test_no_first_token_in_time_is_a_504(stream: bool, autojump_clock: MockClock) -> None:
    face = Face(first_token_timeout_s=3)
    exchange = await face.post(PATH, {**CHAT, "stream": stream})
    assert face.generator.asked[0].first_token_timeout_s == 3
    assert trio.current_time() == pytest.approx(3)
    assert (exchange.status, exchange.error["code"]) == (504, "deadline_exceeded")
    assert "first token" in exchange.error["message"]


async def test_a_stream_that_stalls_ends_with_an_error_event_and_one_that_moves_does_not(
    autojump_clock: MockClock,
) -> None:
    face = Face(stall_timeout_s=3)
    async with trio.open_nursery() as nursery:
        exchange = face.start(nursery, PATH, {**CHAT, "stream": True})
        [asked] = await face.generator.wait_asked()
        for _ in range(5):
            asked.push("x")
            await trio.sleep(2)
        assert asked.cancelled is None
    assert trio.current_time() == pytest.approx(8 + 3)
    assert "next token" in exchange.events[-1]["error"]["message"]
    assert asked.cancelled == "deadline_exceeded"


async def test_a_stream_that_waits_says_so_until_it_counts_as_stalled(
    autojump_clock: MockClock,
) -> None:
    face = Face(stall_timeout_s=10, keep_alive_comment_s=3)
    async with trio.open_nursery() as nursery:
        exchange = face.start(nursery, PATH, {**CHAT, "stream": True})
        [asked] = await face.generator.wait_asked()
        await trio.sleep(5.5)
        assert exchange.status is None, "what fails before the first token has its own status"
        asked.push("x")
    assert trio.current_time() == pytest.approx(5.5 + 10)
    assert exchange.body.count(KEEP_ALIVE) in (2, 3)
    assert b"next token" in exchange.body
    assert exchange.body.endswith(DONE)


async def test_no_comment_comes_while_tokens_do_nor_into_an_answer_that_is_no_stream(
    autojump_clock: MockClock,
) -> None:
    face = Face(keep_alive_comment_s=3)
    for stream in (True, False):
        async with trio.open_nursery() as nursery:
            exchange = face.start(nursery, PATH, {**CHAT, "stream": stream})
            [*_, asked] = await face.generator.wait_asked(1 if stream else 2)
            for number in range(6):
                await trio.sleep(2 if stream else 5)
                asked.push("x", finish="stop" if number == 5 else None)
        assert exchange.body.count(KEEP_ALIVE) == 0


async def test_an_answer_that_changed_workers_says_so_and_others_do_not() -> None:
    face = Face()
    async with trio.open_nursery() as nursery:
        exchange = face.start(nursery, PATH, {**CHAT, "n": 2})
        first, second = await face.generator.wait_asked(2)
        first.push("a", finish="stop")
        second.push("b")
        second.sink.moved()
        second.push("B", finish="stop")
    assert exchange.headers["x-rbee-failovers"] == "1"
    assert exchange.json["usage"]["failovers"] == 1
    assert face.log.of("request_done")[0]["failovers"] == 1
    async with trio.open_nursery() as nursery:
        exchange = face.start(nursery, PATH, CHAT)
        [*_, asked] = await face.generator.wait_asked(3)
        asked.push("a", finish="stop")
    assert "x-rbee-failovers" not in exchange.headers
    assert "failovers" not in exchange.json["usage"]


async def test_the_usage_of_a_stream_tells_that_it_changed_workers() -> None:
    face = Face()
    async with trio.open_nursery() as nursery:
        body = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
        exchange = face.start(nursery, PATH, body)
        [asked] = await face.generator.wait_asked()
        asked.push("a")
        asked.sink.moved()
        asked.push("b", finish="stop")
    assert exchange.events[-1]["usage"]["failovers"] == 1


async def test_what_came_together_is_told_as_one_event_for_each_choice() -> None:
    face = Face()
    async with trio.open_nursery() as nursery:
        exchange = face.start(nursery, PATH, {**CHAT, "stream": True, "n": 2})
        first, second = await face.generator.wait_asked(2)
        first.push("0 ")
        for _ in range(2):
            first.push("1 ", flush=False)
            second.push("2 ", flush=False)
        first.push("3", flush=False, finish="stop")
        first.sink.flush(trio.current_time())
        second.push("", finish="stop")
    texts: dict[int, list[str]] = {0: [], 1: []}
    for event in exchange.events:
        [choice] = event["choices"]
        texts[choice["index"]].append(choice["delta"].get("content", ""))
    assert [text for text in texts[0] if text] == ["0 ", "1 1 3"]
    assert [text for text in texts[1] if text] == ["2 2 "]


async def test_what_came_just_before_a_failure_is_told_before_it() -> None:
    face = Face()
    async with trio.open_nursery() as nursery:
        exchange = face.start(nursery, PATH, {**CHAT, "stream": True})
        [asked] = await face.generator.wait_asked()
        asked.push("a")
        await trio.testing.wait_all_tasks_blocked()
        asked.push("b", flush=False)
        asked.fail(RequestError(ErrorCode.WORKER_FAILED, "the worker ended"))
    *told, failure = exchange.events
    assert "".join(each["choices"][0]["delta"].get("content", "") for each in told) == "ab"
    assert failure["error"]["code"] == "worker_failed"
