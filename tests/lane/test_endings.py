"""How connections of the lane end: by their clients, or for want of room."""

import gc
import json
import socket
from pathlib import Path

import pytest
import trio
import trio.testing

from rbee.errors import ErrorCode, RequestError
from rbee.supervisor.api.generation import Generation
from tests.api.served import ELSEWHERE, LIVE, Served, chat, serve_face
from tests.http_server.harness import AT_ONCE_S, Client
from tests.http_server.test_load import _lowest_free, descriptors
from tests.lane.test_slow_clients import park, say_much, wait_open

SEEN_S = 0.2  # within this time it is known that a client has gone


# Clients that go.


async def in_state(served: Served, state: str) -> Client:
    """A client whose connection stands so."""
    is_parked = state in ("answer parked", "stream parked")
    client = await served.connect(receive_bytes=4096 if is_parked else 0)
    await client.send(SENT[state])
    if state in ("idle", "leaving"):
        await client.read_answer()
    if state in ("waiting", "stream", "stream parked", "answer parked"):
        [asked] = await served.generator.wait_asked()
        if state in ("stream", "stream parked"):
            asked.push("1 ")
            await client.read_until(b'"1 "')
        if state == "stream parked":
            await park(served, asked)
        if state == "answer parked":
            say_much(asked)
    await trio.testing.wait_all_tasks_blocked()
    assert served.lane is not None
    assert served.lane.open_connections == 1
    return client


SENT = {
    "fresh": b"", "idle": LIVE, "head": LIVE[:20], "body": chat()[:-5], "waiting": chat(),
    "stream": chat(stream=True), "stream parked": chat(stream=True), "answer parked": chat(),
    "leaving": b"GET nonsense HTTP/1.1\r\n\r\n",
}  # fmt: skip
GENERATING = ("waiting", "stream", "stream parked")


@pytest.mark.parametrize("state", SENT)
@pytest.mark.parametrize("way", ["closes", "resets"])
async def test_a_client_that_goes_is_seen_within_200_ms(state: str, way: str) -> None:
    async with serve_face(send_deadline_s=60, linger_s=60, parked_bytes_max=10_000_000) as served:
        client = await in_state(served, state)
        await (client.reset() if way == "resets" else client.stream.aclose())
        await wait_open(served, 0, SEEN_S)
        if state in GENERATING:
            assert served.generator.asked[0].cancelled == "client_gone"
        lines = served.log.of("request_done")
        wanted = ["ok"] if state == "idle" else []
        if state in (*GENERATING, "answer parked", "body"):
            wanted = ["client_gone"]
        assert [each["outcome"] for each in lines] == wanted
        assert served.errors == []


async def test_a_client_that_ends_its_side_in_a_generation_has_gone() -> None:
    async with serve_face() as served, await served.connect() as client:
        await client.send(chat(stream=True))
        await served.generator.wait_asked()
        await client.stream.send_eof()
        with trio.fail_after(SEEN_S):
            assert await served.generator.wait_cancelled() == "client_gone"


@pytest.mark.parametrize("headers", [b"", b"Connection: close\r\n"])
async def test_a_client_that_ends_its_side_still_gets_the_answer_that_was_given(
    headers: bytes,
) -> None:
    async with serve_face(say_much) as served, await served.connect(receive_bytes=4096) as client:
        await client.send(chat(headers=headers))
        await client.read_head()
        await client.stream.send_eof()
        body = await client.read_all()
        assert json.loads(body)["choices"][0]["finish_reason"] == "stop"


async def test_requests_that_came_before_the_end_of_the_clients_side_are_answered() -> None:
    async with serve_face() as served, await served.connect() as client:
        await client.send(LIVE * 40)
        await client.stream.send_eof()
        assert (await client.read_all()).count(b'{"status":"ok"}') == 40


async def test_for_a_client_that_has_gone_nothing_more_is_generated() -> None:
    """The answer before shows that it has gone; what it had sent ahead is not begun."""
    async with serve_face() as served:
        client = served.connect_unseen()
        client.send_unseen(LIVE * 5 + chat(stream=True))
        await client.stream.aclose()
        assert await served.is_alive()
        await wait_open(served, 0, SEEN_S)
        assert all(each.is_over for each in served.generator.asked)
        assert served.errors == []
        routes = [each["route"] for each in served.log.of("request_done")]
        assert "/v1/chat/completions" not in routes


async def test_a_request_whose_client_goes_before_its_turn_is_logged_under_its_own_id(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serve_face() as served:
        assert served.lane is not None
        monkeypatch.setattr(served.lane, "call_in_turn", lambda _: None)  # others come first
        client = await served.connect()
        await client.send(chat(headers=b"X-Correlation-ID: mine\r\n"))
        await trio.testing.wait_all_tasks_blocked(0.01)
        await client.reset()
        await wait_open(served, 0, SEEN_S)
        [line] = served.log.of("request_done")
        assert (line["correlation_id"], line["outcome"]) == ("mine", "client_gone")
        assert line["route"] == "/v1/chat/completions"


# Too many, and a system that gives no descriptor.


async def test_who_is_over_the_cap_is_told_so_and_those_inside_are_served() -> None:
    async with serve_face(connections_max=2) as served:
        async with await served.connect() as first, await served.connect() as second:
            await first.send(LIVE)
            await first.read_answer()
            await second.send(ELSEWHERE)  # also who was handed over counts
            await second.read_answer()
            async with await served.connect() as third:
                await third.send(LIVE)
                answer = await third.read_answer()
                assert (answer.status, answer.error["code"]) == (503, "queue_full")
                assert answer.headers["retry-after"] == "1"
                assert await third.read_all() == b""
            for client in (first, second):
                await client.send(LIVE)
                assert (await client.read_answer()).status == 200
        assert len(served.log.of("connections_full")) == 1


async def test_without_descriptors_the_lane_waits_and_then_accepts() -> None:
    async with serve_face() as served:
        assert await served.is_alive()
        sock = socket.socket()
        with descriptors(_lowest_free()):
            sock.connect(("127.0.0.1", served.port))
            client = Client(trio.SocketStream(trio.socket.from_stdlib_socket(sock)))
            await client.send(LIVE)
            while not served.log.of("accept_failed"):
                await trio.sleep(0.01)
            assert served.log.of("accept_failed")[0]["error"] == "EMFILE"
        assert (await client.read_answer()).status == 200
        await client.stream.aclose()
        assert await served.is_alive()
        assert len(served.log.of("accept_failed")) == 1


async def test_without_descriptors_running_streams_go_on_and_shutdown_ends() -> None:
    async with serve_face() as served, await served.connect() as client:
        await client.send(chat(stream=True))
        [asked] = await served.generator.wait_asked()
        other = socket.socket()
        with descriptors(_lowest_free()), other:
            other.connect(("127.0.0.1", served.port))
            while not served.log.of("accept_failed"):
                await trio.sleep(0.01)
            asked.push("1 ")
            await client.read_until(b'"1 "')
            served.shutdown.set()
            await trio.testing.wait_all_tasks_blocked()
            asked.push("2 ", finish="stop")
            await client.read_until(b"[DONE]")
            await client.read_all()
        with trio.fail_after(2 + AT_ONCE_S):
            await served.ended.wait()


# Nothing stays.


async def test_two_thousand_connections_of_all_kinds_leave_no_descriptor() -> None:
    kinds = {**SENT, "handed over": LIVE + ELSEWHERE, "cut": ELSEWHERE, "refused": b"\0"}
    async with serve_face(linger_s=0.05, patience_s=60) as served:
        assert await served.is_alive()
        await wait_open(served, 0, AT_ONCE_S)
        before = descriptors_open()
        for number in range(2000):
            kind, sent = list(kinds.items())[number % len(kinds)]
            client = served.connect_unseen()
            client.send_unseen(sent)
            if number % 3 == 0:
                await client.reset()
                continue
            if kind in ("idle", "handed over"):
                await client.read_answer()
            await client.stream.aclose()
        assert await served.is_alive()  # whom it accepts behind all others
        await wait_open(served, 0, 5)
        with trio.fail_after(5):
            while descriptors_open() > before:
                await trio.sleep(0.01)
        assert served.errors == []
        assert all(each.is_over for each in served.generator.asked)


def descriptors_open() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("ending", ["whole", "stream", "failed", "client_gone"])
async def test_what_is_over_is_gone_without_pythons_collector(ending: str) -> None:
    """Collecting cycles stops all streams for a moment, so no request may leave one."""

    def generations() -> int:
        return sum(isinstance(each, Generation) for each in gc.get_objects())

    async with serve_face() as served:
        gc.collect()
        gc.disable()
        try:
            async with await served.connect() as client:
                await client.send(chat(stream=ending == "stream"))
                [asked] = await served.generator.wait_asked()
                assert generations() == 1
                if ending == "client_gone":
                    await client.reset()
                    await served.generator.wait_cancelled()
                elif ending == "failed":
                    asked.fail(RequestError(ErrorCode.INTERNAL_ERROR, "so it is"))
                    await client.read_answer()
                else:
                    asked.push("x", finish="stop")
                    await client.read_answer()
                served.generator.asked.clear()
                del asked
                assert generations() == 0
        finally:
            gc.enable()
