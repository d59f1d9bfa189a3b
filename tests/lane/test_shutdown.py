"""The server's end: what runs is finished, what is idle seen off; or all is cut at once."""

import contextlib
import json

import pytest
import trio
import trio.testing

from tests.api.served import ELSEWHERE, LIVE, chat, count_to_five, serve_face
from tests.http_server.harness import AT_ONCE_S, MOMENT_S
from tests.lane.test_endings import descriptors_open
from tests.lane.test_slow_clients import park, say_much, stall


async def test_shutdown_finishes_what_runs_and_sees_off_what_is_idle() -> None:
    async with serve_face(keep_alive_s=60, headers_timeout_s=60) as served:
        async with contextlib.AsyncExitStack() as stack:
            fresh, idle, busy, whole = [
                await stack.enter_async_context(await served.connect()) for _ in range(4)
            ]
            await idle.send(LIVE)
            await idle.read_answer()
            await busy.send(chat(stream=True))
            await served.generator.wait_asked()
            await whole.send(chat())
            asked = await served.generator.wait_asked(2)
            asked[0].push("1 ")
            served.shutdown.set()
            with trio.fail_after(1 + AT_ONCE_S):  # either may be about to ask
                assert await idle.read_all() == b""
                assert await fresh.read_all() == b""
            assert not served.ended.is_set()
            count_to_five(asked[0])
            count_to_five(asked[1])
            await busy.read_until(b"[DONE]\n\n\r\n0\r\n\r\n")
            answer = await whole.read_answer()
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert await busy.read_all() == b""
            assert await whole.read_all() == b""
        with trio.fail_after(AT_ONCE_S):
            await served.ended.wait()
        with pytest.raises(ConnectionRefusedError):
            await served.connect()


@pytest.mark.parametrize("has_lane", [True, False])
@pytest.mark.parametrize("sent", [LIVE[:20], chat()[:-5]])
async def test_shutdown_lets_a_request_come_that_has_begun(sent: bytes, has_lane: bool) -> None:
    rest = (LIVE if LIVE.startswith(sent) else chat())[len(sent) :]
    async with (
        serve_face(count_to_five, has_lane=has_lane, linger_s=MOMENT_S) as served,
        await served.connect() as client,
    ):
        await client.send(sent)
        await trio.testing.wait_all_tasks_blocked(0.02)
        served.shutdown.set()
        await trio.sleep(MOMENT_S)
        await client.send(rest)
        answer = await client.read_answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        with trio.fail_after(AT_ONCE_S):
            await served.ended.wait()


@pytest.mark.parametrize("has_lane", [True, False])
@pytest.mark.parametrize(("sent", "status"), [(LIVE[:20], None), (chat()[:-5], 408)])
async def test_shutdown_does_not_wait_long_for_a_request_that_does_not_come(
    sent: bytes, status: int | None, has_lane: bool
) -> None:
    async with (
        serve_face(has_lane=has_lane, linger_s=MOMENT_S) as served,
        await served.connect() as client,
    ):
        await client.send(sent)
        await trio.testing.wait_all_tasks_blocked(0.02)
        served.shutdown.set()
        with trio.fail_after(1 + MOMENT_S + AT_ONCE_S):
            if status is not None:
                answer = await client.read_answer()
                assert (answer.status, answer.error["code"]) == (status, "body_timeout")
                expected = "the body did not arrive before the server closed"
                assert answer.error["message"] == expected
            assert await client.read_all() == b""
            await served.ended.wait()


@pytest.mark.parametrize("has_lane", [True, False])
async def test_shutdown_answers_who_had_connected_and_speaks_a_little_later(
    has_lane: bool,
) -> None:
    async with (
        serve_face(has_lane=has_lane, linger_s=MOMENT_S) as served,
        await served.connect() as client,
    ):
        await trio.testing.wait_all_tasks_blocked(0.02)
        served.shutdown.set()
        await trio.sleep(MOMENT_S)
        await client.send(LIVE)
        assert (await client.read_answer()).status == 200
        with trio.fail_after(AT_ONCE_S):
            await served.ended.wait()


@pytest.mark.parametrize("has_lane", [True, False])
async def test_while_it_drains_each_answer_that_begins_is_its_connections_last(
    has_lane: bool,
) -> None:
    draining = trio.Event()
    async with serve_face(has_lane=has_lane, draining=draining, linger_s=MOMENT_S) as served:
        async with contextlib.AsyncExitStack() as stack:
            idle, busy, whole = [
                await stack.enter_async_context(await served.connect()) for _ in range(3)
            ]
            await idle.send(LIVE)
            assert (await idle.read_answer()).headers.get("connection") != "close"
            await busy.send(chat(stream=True))
            asked = await served.generator.wait_asked()
            await whole.send(chat())
            asked = await served.generator.wait_asked(2)
            asked[0].push("1 ")
            await busy.read_until(b"1 ")
            draining.set()
            await trio.testing.wait_all_tasks_blocked(0.02)
            count_to_five(asked[0])
            count_to_five(asked[1])
            await busy.read_until(b"[DONE]\n\n\r\n0\r\n\r\n")
            await idle.send(LIVE)
            await busy.send(LIVE)  # a client that was not told that it was the last answer
            for client in (busy, idle, whole):
                answer = await client.read_answer()
                assert (answer.status, answer.headers["connection"]) == (200, "close")
            with trio.fail_after(AT_ONCE_S):
                for client in (busy, idle, whole):
                    assert await client.read_all() == b""
        async with await served.connect() as late:  # and whoever comes yet is answered
            await late.send(LIVE)
            answer = await late.read_answer()
            assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert not served.ended.is_set()
        served.shutdown.set()
        with trio.fail_after(AT_ONCE_S):
            await served.ended.wait()


async def test_shutdown_finishes_an_answer_that_is_parked() -> None:
    async with serve_face(say_much) as served, await served.connect(receive_bytes=4096) as client:
        await client.send(chat())
        await client.read_head()
        served.shutdown.set()
        await trio.sleep(MOMENT_S)
        assert not served.ended.is_set()
        assert json.loads(await client.read_all())["object"] == "chat.completion"
        with trio.fail_after(AT_ONCE_S):
            await served.ended.wait()


async def test_shutdown_answers_all_requests_that_had_reached_the_kernel() -> None:
    async with serve_face() as served:
        clients = [served.connect_unseen() for _ in range(300)]
        kept = clients[:100]
        for client in kept:
            client.send_unseen(LIVE)
        for client in kept:
            await client.read_answer()
        for client in clients:
            client.send_unseen(LIVE)
        served.shutdown.set()
        for client in clients:
            assert (await client.read_answer()).status == 200
            await client.stream.aclose()
        with trio.fail_after(AT_ONCE_S):
            await served.ended.wait()


async def test_shutdown_ends_when_a_connection_is_handed_over_in_the_middle_of_it() -> None:
    async with serve_face() as served, await served.connect() as client:
        await client.send(ELSEWHERE[:-3])
        await trio.testing.wait_all_tasks_blocked(0.02)
        served.shutdown.set()
        await trio.testing.wait_all_tasks_blocked(0.02)
        await client.send(ELSEWHERE[-3:])
        answer = await client.read_answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        with trio.fail_after(AT_ONCE_S):
            await served.ended.wait()


async def test_cancelled_the_lane_closes_all_and_ends_all_generations() -> None:
    before = descriptors_open()
    async with serve_face(send_deadline_s=60) as served, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(await served.connect()) for _ in range(3)]
        await clients[1].send(chat()[:-5])
        await clients[2].send(chat())
        await served.generator.wait_asked()
        stuck, asked = await stall(served)
        await park(served, asked)
        served.life.cancel(reason="a second signal")
        with trio.fail_after(AT_ONCE_S):
            await served.ended.wait()
            for client in clients:
                assert await client.read_all() == b""
        await stuck.stream.aclose()
        assert [each.cancelled for each in served.generator.asked] == ["shut_down"] * 2
        assert {each["outcome"] for each in served.log.of("request_done")} == {"shut_down"}
        assert len(served.log.of("request_done")) == 3
    assert descriptors_open() == before


@pytest.mark.parametrize("has_lane", [True, False])
async def test_shutdown_answers_who_asks_again_right_after_a_stream(has_lane: bool) -> None:
    async with (
        serve_face(has_lane=has_lane, linger_s=MOMENT_S) as served,
        await served.connect() as client,
    ):
        await client.send(chat(stream=True))
        asked = await served.generator.wait_asked()
        asked[0].push("1 ")
        await client.read_until(b"1 ")
        served.shutdown.set()
        await trio.testing.wait_all_tasks_blocked(0.02)
        count_to_five(asked[0])
        await client.read_until(b"[DONE]\n\n\r\n0\r\n\r\n")
        await trio.sleep(MOMENT_S)
        await client.send(LIVE)
        answer = await client.read_answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        with trio.fail_after(AT_ONCE_S):
            await served.ended.wait()
