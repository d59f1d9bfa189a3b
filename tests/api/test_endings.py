"""How answers end that their clients do not wait for, on the lane and without it."""

import functools
from typing import Any

import pytest
import trio
import trio.testing

from rbee.config import ServerConfig
from tests.api.fake_generator import Asked
from tests.api.served import LIVE, Served, Serving, chat, count_to_five, serve_face
from tests.http_server.harness import AT_ONCE_S, MOMENT_S

LAST_CHUNK = b"0\r\n\r\n"
MUCH = 3_000_000  # more than the kernel takes from one who sends
AMPLE = ServerConfig(parked_bytes_max=10 * MUCH)


@pytest.fixture(params=[True, False], ids=["lane", "without the lane"])
def serving(request: pytest.FixtureRequest) -> Serving:
    return functools.partial(serve_face, has_lane=request.param)


async def test_a_stream_that_is_broken_off_has_no_proper_end(serving: Serving) -> None:
    async with serving() as served, await served.connect() as client:
        await client.send(chat(stream=True))
        [asked] = await served.generator.wait_asked()
        asked.push("1 ")
        await client.read_until(b'"1 "')
        await client.stream.send_eof()
        assert LAST_CHUNK not in await client.read_all()
    assert [each["outcome"] for each in served.log.of("request_done")] == ["client_gone"]
    assert served.errors == []


@pytest.mark.parametrize("padding", [0, 70_000])
async def test_what_is_sent_ahead_is_answered_in_its_turn_however_long_it_is(
    serving: Serving, padding: int
) -> None:
    asking = chat(user=" " * padding), chat(user=" " * 200_000), LIVE, chat(user=" " * 90_000)
    async with (
        serving() as served,
        await served.connect() as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(client.send, b"".join(asking))
        for number in range(3):
            asked = await served.generator.wait_asked(number + 1)
            await trio.testing.wait_all_tasks_blocked(0.01)
            asked[number].push(f"{number}", finish="stop")
            assert f'"content":"{number}"'.encode() in (await client.read_answer()).body
            if number == 1:
                assert (await client.read_answer()).body == b'{"status":"ok"}'
    assert served.errors == []


@pytest.mark.parametrize("way", ["closes", "resets", "ends its side"])
async def test_a_client_that_goes_behind_much_that_it_sent_ahead_is_seen(
    serving: Serving, way: str
) -> None:
    async with serving() as served, await served.connect() as client:
        await client.send(chat())
        await served.generator.wait_asked()
        await client.send(chat(user=" " * 150_000))
        await trio.testing.wait_all_tasks_blocked(0.01)
        match way:
            case "closes":
                await client.stream.aclose()
            case "resets":
                await client.reset()
            case _:
                await client.stream.send_eof()
        with trio.fail_after(AT_ONCE_S):
            assert await served.generator.wait_cancelled() == "client_gone"
        if way == "ends its side":
            assert await client.read_all() == b""  # and no word of a failure of ours
    assert [each["outcome"] for each in served.log.of("request_done")] == ["client_gone"]
    assert served.errors == []


async def test_a_last_answer_arrives_whatever_was_sent_ahead_behind_it(serving: Serving) -> None:
    draining = trio.Event()
    async with (
        serving(draining=draining) as served,
        await served.connect() as client,
        trio.open_nursery() as nursery,
    ):
        await client.send(chat())
        [asked] = await served.generator.wait_asked()
        nursery.start_soon(client.send, chat(user=" " * 400_000))
        await trio.testing.wait_all_tasks_blocked(0.01)
        draining.set()
        await trio.testing.wait_all_tasks_blocked(0.01)
        asked.push("x" * 500_000, finish="stop")
        await trio.sleep(0.1)
        answer = await client.read_answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert b"x" * 500_000 in answer.body


async def wait_done(served: Served) -> dict[str, Any]:
    with trio.fail_after(MOMENT_S + 2 * AT_ONCE_S):
        while not (lines := served.log.of("request_done")):
            await trio.sleep(0.01)
    [line] = lines
    return line


def say_much(asked: Asked) -> None:
    asked.push("x" * MUCH)
    asked.push("", finish="stop")


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_an_answer_that_its_client_does_not_take_is_no_good_one(
    serving: Serving, stream: bool, version: bytes
) -> None:
    async with (
        serving(
            say_much, config=AMPLE, parked_bytes_max=10 * MUCH, send_deadline_s=MOMENT_S
        ) as served,
        await served.connect(receive_bytes=4096) as client,
    ):
        await client.send(chat(stream=stream, version=version))
        line = await wait_done(served)
        assert (line["outcome"], line["status"]) == ("slow_client", 200)
    assert served.errors == []


@pytest.mark.parametrize("way", ["reads it", "ends its side", "resets"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_an_answer_is_good_once_the_client_has_all_of_it(
    serving: Serving, stream: bool, way: str
) -> None:
    async with (
        serving(say_much, config=AMPLE, parked_bytes_max=10 * MUCH) as served,
        await served.connect(receive_bytes=4096) as client,
    ):
        await client.send(chat(stream=stream))
        await client.read_head()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert served.log.of("request_done") == []
        match way:
            case "resets":
                await client.reset()
            case "ends its side":
                await client.stream.send_eof()
        if way != "resets":
            await client.read_until(b"[DONE]\n\n\r\n0\r\n\r\n" if stream else b"}}")
        line = await wait_done(served)
        assert line["outcome"] == ("client_gone" if way == "resets" else "ok")
    assert served.errors == []


@pytest.mark.parametrize(
    "rest", [b"zz\r\n", b"0\r\n" + b"X-Trailer: and more\r\n" * 2000], ids=["chunk", "trailers"]
)
async def test_a_body_that_turns_out_malformed_is_answered_under_the_clients_own_id(
    serving: Serving, rest: bytes
) -> None:
    async with serving() as served, await served.connect() as client:
        head, _, _ = chat(headers=b"X-Correlation-ID: mine\r\n").rpartition(b"Content-Length")
        await client.send(head + b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"mod\r\n')
        await trio.testing.wait_all_tasks_blocked(0.01)
        await client.send(rest)
        answer = await client.read_answer()
        assert (answer.status, answer.error["code"]) == (400, "invalid_request")
        assert answer.error["correlation_id"] == answer.headers["x-correlation-id"] == "mine"
        assert answer.headers["connection"] == "close"
    [line] = served.log.of("request_done")
    assert (line["correlation_id"], line["outcome"]) == ("mine", "invalid_request")
    assert line["status"] == 400
    assert served.errors == []


async def test_time_runs_from_the_head_of_a_request_on(serving: Serving) -> None:
    async with serving(count_to_five) as served, await served.connect() as client:
        sent = chat(headers=b"X-Request-Timeout: 9\r\n")
        await client.send(sent[:-5])
        await trio.sleep(MOMENT_S)
        await client.send(sent[-5:])
        answer = await client.read_answer()
        assert (answer.status, answer.headers["x-request-deadline"][17:19]) == (200, "49")
        assert served.generator.asked[0].remaining_s < 9 - MOMENT_S * 0.9
        line = await wait_done(served)
        assert line["duration_s"] > MOMENT_S * 0.9


@pytest.mark.parametrize("body_timeout_s", [MOMENT_S, 10.0])
async def test_a_body_is_waited_for_no_longer_than_its_request_may_take(
    serving: Serving, body_timeout_s: float
) -> None:
    config = ServerConfig(body_timeout_s=body_timeout_s)
    async with serving(config=config) as served, await served.connect() as client:
        late = b"9" if body_timeout_s == MOMENT_S else b"%g" % MOMENT_S
        await client.send(chat(headers=b"X-Request-Timeout: %b\r\n" % late)[:-5])
        with trio.fail_after(MOMENT_S + AT_ONCE_S):
            answer = await client.read_answer()
        told = (504, "deadline_exceeded") if body_timeout_s == 10 else (408, "body_timeout")
        assert (answer.status, answer.error["code"]) == told
        assert answer.headers["connection"] == "close"
        assert "x-request-deadline" in answer.headers
        line = await wait_done(served)
        assert (line["outcome"], line["status"]) == (told[1], told[0])
        assert line["duration_s"] > MOMENT_S * 0.9


@pytest.mark.parametrize(
    "headers", [b"X-Request-Timeout: soon\r\n", b"Host: elsewhere.example\r\n"]
)
async def test_what_is_wrong_with_a_head_is_told_alike_whenever_its_body_comes(
    serving: Serving, headers: bytes
) -> None:
    async with serving() as served:
        told = []
        sent = chat(headers=headers)
        if headers.startswith(b"Host"):
            sent = sent.replace(b"Host: localhost\r\n", b"")
        for size in (len(sent), len(sent) - 5):
            async with await served.connect() as client:
                await client.send(sent[:size])
                await trio.testing.wait_all_tasks_blocked(0.01)
                await client.stream.send_all(sent[size:])
                answer = await client.read_answer()
                names = sorted(answer.headers)
                told.append((answer.status, answer.error["code"], answer.error["param"], names))
        assert told[0][:3] == told[1][:3]
        assert set(told[0][3]) - {"connection"} == set(told[1][3]) - {"connection"}
