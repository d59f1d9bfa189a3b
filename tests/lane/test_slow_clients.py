"""Clients that read slowly, talk slowly, or not at all: each has its bound, and delays nobody."""

import json
import tracemalloc

import pytest
import trio

from rbee.config import ServerConfig
from tests.api.fake_generator import Asked
from tests.api.served import LIVE, Served, chat, count_to_five, serve_face
from tests.http_server.harness import AT_ONCE_S, MOMENT_S, Client

MUCH = 3_000_000  # more than the kernel takes from one who sends
LATE_S = MOMENT_S + AT_ONCE_S


def say_much(asked: Asked) -> None:
    asked.push("x" * MUCH, finish="stop")


async def stall(served: Served, **more: object) -> tuple[Client, Asked]:
    """A client that reads the first of its stream and then nothing."""
    client = await served.connect(receive_bytes=4096)
    count = len(served.generator.asked)
    await client.send(chat(stream=True, **more))  # type: ignore[arg-type]
    asked = (await served.generator.wait_asked(count + 1))[count]
    asked.push("first")
    await client.read_until(b'"first"')
    return client, asked


# Reading slowly.


async def test_an_answer_that_the_kernel_does_not_take_at_once_arrives_whole() -> None:
    async with serve_face(say_much) as served, await served.connect(receive_bytes=4096) as client:
        for _ in range(2):
            await client.send(chat())
            told = json.loads((await client.read_answer()).body)
            assert told["choices"][0]["message"]["content"] == "x" * MUCH


async def test_a_client_that_takes_its_answer_slowly_has_all_the_time_that_it_needs() -> None:
    """Neither the time between requests nor that for a head runs while an answer is taken."""
    async with serve_face(
        say_much, keep_alive_s=MOMENT_S, headers_timeout_s=MOMENT_S, send_deadline_s=LATE_S
    ) as served:
        for behind in (b"", LIVE[:9]):
            async with await served.connect(receive_bytes=4096) as client:
                await client.send(chat() + behind)
                await client.read_head()
                started_s, taken = trio.current_time(), 0
                while trio.current_time() < started_s + 4 * MOMENT_S:
                    taken += len(await client.read(1000))
                    await trio.sleep(MOMENT_S / 10)
                rest = await client.read_all()
                assert MUCH < taken + len(rest) < MUCH + 1000


async def test_the_last_answer_of_a_connection_may_be_taken_slowly_too() -> None:
    async with (
        serve_face(
            say_much, headers_timeout_s=MOMENT_S, linger_s=MOMENT_S, send_deadline_s=60
        ) as served,
        await served.connect(receive_bytes=4096) as client,
    ):
        await client.send(chat(headers=b"Connection: close\r\n"))
        await trio.sleep(LATE_S)
        assert len((await client.read_answer()).body) > MUCH
        assert await client.read_all() == b""


async def test_a_client_that_does_not_take_its_answer_is_given_up() -> None:
    async with (
        serve_face(say_much, send_deadline_s=MOMENT_S) as served,
        await served.connect(receive_bytes=4096) as client,
    ):
        await client.send(chat())
        await served.generator.wait_asked()
        await wait_open(served, 0, LATE_S)
        assert len(await client.read_all()) < MUCH
    assert [each["outcome"] for each in served.log.of("request_done")] == ["slow_client"]


async def test_a_slow_reader_of_a_stream_is_cut_at_its_bound_and_its_generation_cancelled() -> None:
    bound = 32 * 1024
    async with serve_face(parked_bytes_max=bound, send_deadline_s=60) as served:
        client, asked = await stall(served)
        assert served.lane is not None
        [connection] = served.lane._open.values()
        parked_bytes: list[int] = []
        while asked.cancelled is None:
            parked_bytes.append(connection._client.parked_bytes)
            asked.push("x" * 1000)
            await trio.lowlevel.checkpoint()
        assert asked.cancelled == "slow_client"
        assert bound / 2 < max(parked_bytes) <= bound
        await wait_open(served, 0, AT_ONCE_S)
        assert [each["outcome"] for each in served.log.of("request_done")] == ["slow_client"]
        await client.stream.aclose()


async def test_a_slow_reader_of_a_stream_is_cut_when_it_takes_nothing_for_too_long() -> None:
    async with serve_face(send_deadline_s=MOMENT_S) as served:
        client, asked = await stall(served)
        await park(served, asked)
        with trio.fail_after(LATE_S):
            assert await served.generator.wait_cancelled() == "slow_client"
        await client.stream.aclose()


async def test_talking_does_not_save_a_client_that_does_not_read() -> None:
    async with serve_face(send_deadline_s=MOMENT_S) as served:
        client, asked = await stall(served)
        await park(served, asked)
        with trio.fail_after(LATE_S):
            while asked.cancelled is None:
                await client.send(b"G")
                await trio.sleep(MOMENT_S / 8)
        assert asked.cancelled == "slow_client"
        await client.stream.aclose()


async def test_slow_readers_delay_nobody() -> None:
    async with serve_face(send_deadline_s=60) as served:
        stuck = [await stall(served) for _ in range(20)]
        for _, asked in stuck:
            await park(served, asked)
        async with await served.connect() as client:
            for number in range(20):
                with trio.fail_after(AT_ONCE_S):
                    await client.send(chat(stream=True))
                    asked = (await served.generator.wait_asked(21 + number))[-1]
                    count_to_five(asked)
                    await client.read_until(b"[DONE]\n\n\r\n0\r\n\r\n")
        assert [asked.cancelled for _, asked in stuck] == [None] * 20
        for client, _ in stuck:
            await client.reset()


async def test_what_is_parked_in_the_middle_of_a_stream_arrives_in_order() -> None:
    async with serve_face(parked_bytes_max=10_000_000) as served:
        client, asked = await stall(served)
        for number in range(500):
            asked.push(f"<{number}>" + "x" * 500)
        asked.push("", finish="stop")
        rest = (await client.read_until(b"[DONE]\n\n\r\n0\r\n\r\n")).decode()
        places = [rest.index(f"<{number}>") for number in range(500)]
        assert places == sorted(places)
        await client.send(LIVE)
        assert (await client.read_answer()).status == 200
        await client.stream.aclose()


async def test_a_client_that_sends_ahead_and_reads_nothing_costs_a_bounded_memory() -> None:
    async with serve_face(send_deadline_s=60) as served:
        client = await served.connect(receive_bytes=4096)
        assert await served.is_alive()
        tracemalloc.start()
        try:
            with trio.move_on_after(1.5):
                while True:
                    await client.stream.send_all(LIVE * 1000)
            current_bytes, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak_bytes < 1_000_000, current_bytes
        assert await served.is_alive()
        await client.reset()


# Talking slowly.


@pytest.mark.parametrize("said", [b"", b"GET /health"])
async def test_a_head_that_does_not_come_ends_the_connection(said: bytes) -> None:
    async with (
        serve_face(headers_timeout_s=MOMENT_S) as served,
        await served.connect() as client,
    ):
        await client.send(said)
        started_s = trio.current_time()
        assert await client.read_all() == b""
        assert MOMENT_S * 0.9 < trio.current_time() - started_s < LATE_S


@pytest.mark.parametrize("before", [b"", LIVE])
async def test_a_head_that_drips_gets_no_more_time_by_it(before: bytes) -> None:
    async with (
        serve_face(headers_timeout_s=MOMENT_S) as served,
        await served.connect() as client,
        trio.open_nursery() as nursery,
    ):
        await client.send(before)
        if before:
            await client.read_answer()
        started_s = trio.current_time()

        async def drip() -> None:
            try:
                for byte in LIVE[:-1] * 100:
                    await client.stream.send_all(bytes([byte]))
                    await trio.sleep(MOMENT_S / 8)
            except trio.BrokenResourceError:
                return

        nursery.start_soon(drip)
        assert await client.read_all() == b""
        assert MOMENT_S * 0.9 < trio.current_time() - started_s < LATE_S


async def test_a_client_that_asks_nothing_more_is_seen_off_after_the_keep_alive_time() -> None:
    async with serve_face(keep_alive_s=MOMENT_S) as served, await served.connect() as client:
        for _ in range(3):
            await trio.sleep(MOMENT_S * 0.7)
            await client.send(LIVE)
            await client.read_answer()
        started_s = trio.current_time()
        assert await client.read_all() == b""
        assert MOMENT_S * 0.9 < trio.current_time() - started_s < LATE_S


@pytest.mark.parametrize("drips", [False, True])
async def test_a_body_that_does_not_come_in_time_is_answered_so(drips: bool) -> None:
    config = ServerConfig(body_timeout_s=MOMENT_S)
    async with serve_face(config=config) as served, await served.connect() as client:
        sent = chat(headers=b"X-Correlation-ID: late\r\nX-Request-Timeout: 9\r\n")
        await client.send(LIVE + sent[:-20])
        assert (await client.read_answer()).status == 200
        async with trio.open_nursery() as nursery:

            async def drip() -> None:
                try:
                    for byte in sent[-20:-1] if drips else b"":
                        await trio.sleep(MOMENT_S / 8)
                        await client.stream.send_all(bytes([byte]))
                except trio.BrokenResourceError:
                    return

            nursery.start_soon(drip)
            with trio.fail_after(LATE_S):
                answer = await client.read_answer()
            nursery.cancel_scope.cancel(reason="answered")
        assert (answer.status, answer.error["code"]) == (408, "body_timeout")
        assert answer.headers["connection"] == "close"
        assert answer.headers["x-correlation-id"] == "late"
        assert "x-request-deadline" in answer.headers
        assert await client.read_all() == b""
    [_, line] = served.log.of("request_done")
    assert (line["outcome"], line["status"]) == ("body_timeout", 408)


async def test_a_bad_head_says_more_than_a_body_that_does_not_come() -> None:
    config = ServerConfig(body_timeout_s=MOMENT_S)
    async with serve_face(config=config) as served, await served.connect() as client:
        await client.send(chat(headers=b"Content-Type: text/plain\r\n")[:-1])
        assert (await client.read_answer()).error["code"] == "unsupported_media_type"


async def test_what_came_in_time_is_answered_by_a_server_that_looks_too_late() -> None:
    async with serve_face(headers_timeout_s=0, keep_alive_s=0) as served:
        clients = [served.connect_unseen() for _ in range(300)]
        for client in clients:
            client.send_unseen(LIVE)
        for client in clients:
            assert (await client.read_answer()).status == 200
            await client.stream.aclose()


async def wait_open(served: Served, count: int, within_s: float) -> None:
    """Wait until the lane has so many connections."""
    assert served.lane is not None
    with trio.fail_after(within_s):
        while served.lane.open_connections != count:
            await trio.sleep(0.005)


async def park(served: Served, asked: Asked) -> None:
    """Give a stream so much that something of it is parked."""
    assert served.lane is not None
    connections = list(served.lane._open.values())
    before = sum(each.wants_to_write for each in connections)
    while sum(each.wants_to_write for each in connections) == before:
        asked.push("x" * 10_000)
        await trio.lowlevel.checkpoint()
