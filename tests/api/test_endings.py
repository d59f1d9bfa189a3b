"""How answers end that their clients do not wait for, on the lane and without it."""

import functools

import pytest
import trio
import trio.testing

from tests.api.served import LIVE, Serving, chat, serve_face
from tests.http_server.harness import AT_ONCE_S

LAST_CHUNK = b"0\r\n\r\n"


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
