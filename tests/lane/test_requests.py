"""Requests on one connection of the lane: kept alive, sent ahead, handed over; always in order."""

import json
from typing import Any

import pytest
import trio
import trio.testing

from rbee.config import ServerConfig
from rbee.supervisor.http_server.protocol import PIPELINED_BYTES_MAX
from tests.api.fake_generator import Asked
from tests.api.served import ELSEWHERE, LIVE, chat, count_to_five, serve_face
from tests.http_server.harness import MOMENT_S, Answer

MUCH = 3_000_000  # more than the kernel takes from one who sends


def say(asked: Asked) -> None:
    """Answer with the prompt."""
    asked.push(str(asked.ask.messages[-1].content), finish="stop")


def say_much(asked: Asked) -> None:
    asked.push("x" * MUCH, finish="stop")


def prompt(text: str, **more: Any) -> bytes:
    return chat(messages=[{"role": "user", "content": text}], **more)


def content(answer: Answer) -> str:
    assert answer.status == 200, answer
    if answer.chunks:
        lines = [line for line in answer.body.split(b"\n\n") if line.startswith(b"data: {")]
        deltas = [json.loads(line[6:])["choices"][0]["delta"] for line in lines]
        return "".join(delta.get("content") or "" for delta in deltas)
    told: str = json.loads(answer.body)["choices"][0]["message"]["content"]
    return told


async def test_all_hot_routes_share_a_connection_for_as_long_as_the_client_likes() -> None:
    async with serve_face(say) as served, await served.connect() as client:
        for number in range(20):
            await client.send(LIVE)
            assert (await client.read_answer()).body == b'{"status":"ok"}'
            await client.send(prompt(f"whole {number}"))
            assert content(await client.read_answer()) == f"whole {number}"
            await client.send(prompt(f"stream {number}", stream=True))
            assert content(await client.read_answer()) == f"stream {number}"
        assert served.lane is not None
        assert served.lane.open_connections == 1


@pytest.mark.parametrize("count", [15, 16, 17, 33, 500])
async def test_requests_sent_ahead_are_answered_in_order_also_more_than_a_turns_worth(
    count: int,
) -> None:
    async with serve_face() as served, await served.connect() as client:
        ids = [f"n-{number}" for number in range(count)]
        requests = [LIVE[:-2] + b"X-Correlation-ID: %b\r\n\r\n" % each.encode() for each in ids]
        await client.send(b"".join(requests))
        assert [(await client.read_answer()).headers["x-correlation-id"] for _ in ids] == ids


@pytest.mark.parametrize("count", [2, 40])
async def test_generations_sent_ahead_run_one_after_the_other(count: int) -> None:
    async with serve_face(say) as served, await served.connect() as client:
        requests = [prompt(f"no. {n}", stream=n % 2 == 0) for n in range(count)]
        await client.send(b"".join(requests))
        for number in range(count):
            assert content(await client.read_answer()) == f"no. {number}"
            assert len(served.generator.asked) <= number + 2
    assert [each["outcome"] for each in served.log.of("request_done")] == ["ok"] * count


async def test_good_and_bad_requests_sent_ahead_keep_their_order() -> None:
    async with serve_face(say) as served, await served.connect() as client:
        bad = prompt("bad", temperature=99)
        await client.send(LIVE + bad + prompt("a") + bad + LIVE + prompt("b", stream=True) + LIVE)
        answers = [await client.read_answer() for _ in range(7)]
    assert [answer.status for answer in answers] == [200, 400, 200, 400, 200, 200, 200]
    assert (content(answers[2]), content(answers[5])) == ("a", "b")


@pytest.mark.parametrize(
    ("ahead", "count", "bytes_max"),
    [
        pytest.param(LIVE, 20_000, PIPELINED_BYTES_MAX + len(LIVE), id="answered at once"),
        pytest.param(chat(), 1000, 2 * PIPELINED_BYTES_MAX, id="generations"),
    ],
)
async def test_a_client_that_sends_ahead_without_end_is_answered_and_not_stored(
    ahead: bytes, count: int, bytes_max: int
) -> None:
    """What is read waits for its turn, and nothing is read meanwhile."""
    async with (
        serve_face(count_to_five, patience_s=30) as served,
        await served.connect() as client,
    ):
        waiting_bytes: list[int] = []

        async def send() -> None:
            for _ in range(count // 100):
                await client.send(ahead * 100)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            assert served.lane is not None
            for number in range(count):
                assert (await client.read_answer()).status == 200
                if number % 100 == 0:
                    [connection] = served.lane._open.values()
                    waiting_bytes.append(len(connection._machine._received))
    assert max(waiting_bytes) <= bytes_max


async def test_a_client_that_sends_much_behind_a_running_generation_is_made_to_wait() -> None:
    async with serve_face() as served, await served.connect() as client:
        await client.send(chat(stream=True))
        [asked] = await served.generator.wait_asked()
        with trio.move_on_after(2 * MOMENT_S) as patience:
            await client.stream.send_all(LIVE * 1_000_000)
        assert patience.cancelled_caught
        assert served.lane is not None
        [connection] = served.lane._open.values()
        assert len(connection._machine._received) <= 2 * PIPELINED_BYTES_MAX
        asked.push("still here", finish="stop")
        await client.read_until(b"[DONE]\n\n\r\n0\r\n\r\n")
        assert (await client.read_answer()).status == 200
        await client.reset()


@pytest.mark.parametrize("parts", [1, 3, 40])
async def test_requests_that_come_in_parts_are_answered_as_those_that_come_whole(
    parts: int,
) -> None:
    async with serve_face(say) as served, await served.connect() as client:
        sent = prompt("in parts")
        size = len(sent) // parts + 1
        for start in range(0, len(sent), size):
            await client.send(sent[start : start + size])
            await trio.testing.wait_all_tasks_blocked()
        assert content(await client.read_answer()) == "in parts"


# Handed over: what is not for the lane, on a connection that began there.

BODY = b'{"model":"bee-tiny","messages":[{"role":"user","content":"odd"}]}'
CHUNKED = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
)
LARGE_BODY = BODY[:-1] + b" " * 70_000 + b"}"
LARGE = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (
    len(LARGE_BODY),
    LARGE_BODY,
)
WITH_A_BODY = LIVE[:-2] + b"Content-Length: 3\r\n\r\nabc"
FOR_THE_HTTP_SERVER = {
    "another route": (ELSEWHERE, b'"id":"bee-tiny"'),
    "a query": (LIVE.replace(b"live", b"live?a=b"), b'"status":"ok"'),
    "an unknown route": (LIVE.replace(b"/health/live", b"/nowhere"), b'"not_found"'),
    "another method": (LIVE.replace(b"GET", b"DELETE"), b'"method_not_allowed"'),
    "a chunked body": (CHUNKED, b'"content":"odd"'),
    "a large body": (LARGE, b'"content":"odd"'),
    "a GET with a body": (WITH_A_BODY, b'"status":"ok"'),
}


@pytest.mark.parametrize(("sent", "told"), FOR_THE_HTTP_SERVER.values(), ids=FOR_THE_HTTP_SERVER)
@pytest.mark.parametrize("before", [b"", LIVE, LIVE * 20, prompt("a", stream=True)])
async def test_what_is_handed_over_is_answered_in_its_turn_and_what_follows_too(
    sent: bytes, told: bytes, before: bytes
) -> None:
    async with serve_face(say) as served, await served.connect() as client:
        await client.send(before + sent + LIVE)
        for _ in range(before.count(b" HTTP/1.1\r\n")):
            assert (await client.read_answer()).status == 200
        assert told in (await client.read_answer()).body
        assert (await client.read_answer()).body == b'{"status":"ok"}'
        assert served.lane is not None
        assert served.lane.open_connections == 0
        await client.send(prompt("at last"))
        assert content(await client.read_answer()) == "at last"


async def test_a_body_that_waits_for_100_continue_is_asked_for_and_answered() -> None:
    async with serve_face(say) as served, await served.connect() as client:
        whole = prompt("go on")
        head, _, body = whole.partition(b"\r\n\r\n")
        await client.send(LIVE + head + b"\r\nExpect: 100-continue\r\n\r\n")
        assert (await client.read_answer()).status == 200
        assert (await client.read_head())[0] == 100
        await client.send(body + LIVE)
        assert content(await client.read_answer()) == "go on"
        assert (await client.read_answer()).status == 200


async def test_head_options_and_http_1_0_are_answered_on_a_connection_of_the_lane() -> None:
    async with serve_face(say) as served, await served.connect() as client:
        await client.send(LIVE + LIVE.replace(b"GET", b"HEAD"))
        await client.read_answer()
        status, headers = await client.read_head()
        assert (status, headers["content-length"]) == (200, "15")
        await client.send(LIVE.replace(b"GET", b"OPTIONS"))
        status, headers = await client.read_head()
        assert (status, headers["allow"]) == (204, "GET, HEAD, OPTIONS")
        await client.send(LIVE.replace(b"HTTP/1.1", b"HTTP/1.0"))
        answer = await client.read_answer()
        assert (answer.body, answer.headers["connection"]) == (b'{"status":"ok"}', "close")
        assert await client.read_all() == b""


async def test_a_hand_over_waits_for_the_answer_that_is_still_being_sent() -> None:
    async with serve_face(say_much) as served, await served.connect(receive_bytes=4096) as client:
        await client.send(chat() + ELSEWHERE + LIVE)
        await served.generator.wait_asked()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert served.lane is not None
        assert served.lane.open_connections == 1
        assert content(await client.read_answer()) == "x" * MUCH
        assert json.loads((await client.read_answer()).body)["id"] == "bee-tiny"
        assert (await client.read_answer()).status == 200
        assert served.lane.open_connections == 0


@pytest.mark.parametrize("behind", [b"", b"Connection: close\r\n"])
async def test_a_refusal_waits_for_the_answer_that_is_still_being_sent(behind: bytes) -> None:
    async with serve_face(say_much) as served, await served.connect(receive_bytes=4096) as client:
        await client.send(chat(headers=behind) + b"GET nonsense HTTP/1.1\r\n\r\n")
        assert content(await client.read_answer()) == "x" * MUCH
        rest = await client.read_all()
        assert rest.startswith(b"HTTP/1.1 400 ") is (behind == b"")


async def test_after_close_nothing_more_is_answered() -> None:
    async with serve_face(say) as served, await served.connect() as client:
        await client.send(LIVE[:-2] + b"Connection: close\r\n\r\n" + LIVE + prompt("never"))
        answer = await client.read_answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await client.read_all() == b""
        assert served.generator.asked == []


async def test_what_comes_behind_a_last_request_harms_nobody_however_much_it_is() -> None:
    async with serve_face() as served, await served.connect() as client:
        await client.send(chat(stream=True, headers=b"Connection: close\r\n") + b"x" * 300_000)
        [asked] = await served.generator.wait_asked()
        count_to_five(asked)
        assert content(await client.read_answer()) == "1 2 3 4 5 "


async def test_a_body_limit_below_that_of_the_lane_holds_on_the_lane() -> None:
    config = ServerConfig(body_bytes_max=1024)
    async with serve_face(say, config=config) as served, await served.connect() as client:
        await client.send(prompt("x" * 2000))
        answer = await client.read_answer()
        assert (answer.status, answer.error["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("has_lane", [True, False])
async def test_a_stream_that_waits_says_so_at_either_face(has_lane: bool) -> None:
    config = ServerConfig(keep_alive_comment_s=1.0)
    async with serve_face(has_lane=has_lane, config=config) as served:
        client = await served.connect()
        await client.send(chat(stream=True))
        [asked] = await served.generator.wait_asked()
        asked.push("1 ")
        await client.read_until(b"\n: keep-alive\n\n")
        asked.push("2 ", finish="stop")
        await client.read_until(b"data: [DONE]\n\n")
        await client.stream.aclose()
