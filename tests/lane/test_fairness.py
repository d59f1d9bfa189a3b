"""Who makes the lane work does not keep it from the others, nor the supervisor from the rest."""

import contextlib
import time
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing

from rbee.supervisor.api.answers import Answer
from rbee.supervisor.api.hot import HotGet
from rbee.supervisor.api.visit import Visit
from tests.api.served import LIVE, chat, serve_face
from tests.http_server.harness import Client

# One process is server, clients and flood here, so the bounds are wide; without turns that end,
# each of these waits takes seconds.
PATIENCE_S = 0.5


async def longest_wait(stop: trio.Event) -> float:
    """How long another task of this process waited for its turn, at most."""
    longest_s = 0.0
    while not stop.is_set():
        before_s = time.perf_counter()
        await trio.lowlevel.checkpoint()
        longest_s = max(longest_s, time.perf_counter() - before_s)
    return longest_s


async def test_a_flood_of_costly_requests_delays_neither_a_stream_nor_another_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serve_face() as served, contextlib.AsyncExitStack() as stack:
        live = served.face.hot.gets["/health/live"]

        def answer_at_cost(visit: Visit) -> Answer:
            until_s = time.perf_counter() + 0.003
            while time.perf_counter() < until_s:
                pass
            return live.answer(visit)

        monkeypatch.setitem(
            served.face.hot.gets,
            "/health/live",
            HotGet(answer_at_cost, is_quiet=True),
        )
        stream = await stack.enter_async_context(await served.connect())
        await stream.send(chat(stream=True))
        [asked] = await served.generator.wait_asked()
        flood = [await stack.enter_async_context(await served.connect()) for _ in range(60)]
        await trio.testing.wait_all_tasks_blocked()
        stop, waits = trio.Event(), list[float]()

        async def watch() -> None:
            waits.append(await longest_wait(stop))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await trio.sleep(0.01)
            for client in flood:
                client.send_unseen(LIVE)  # all at once: 180 ms of work
            for number in range(10):
                asked.push(f"<{number}>")
                with trio.fail_after(PATIENCE_S):
                    await stream.read_until(b"<%d>" % number)
            for client in flood:
                assert (await client.read_answer()).status == 200
            stop.set()
        assert waits[0] < 0.09, waits


async def test_clients_that_send_ahead_without_end_leave_the_others_their_turn() -> None:
    async with serve_face() as served, contextlib.AsyncExitStack() as stack:
        greedy = [await stack.enter_async_context(await served.connect()) for _ in range(20)]
        async with trio.open_nursery() as nursery:

            async def send(client: Client) -> None:
                with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    while True:
                        await client.stream.send_all(LIVE * 100)

            async def read(client: Client) -> None:
                while True:
                    await client.stream.receive_some(65_536)

            for client in greedy:
                nursery.start_soon(send, client)
                nursery.start_soon(read, client)
            for _ in range(10):
                with trio.fail_after(PATIENCE_S):
                    assert await served.is_alive()
            nursery.cancel_scope.cancel(reason="enough")


async def test_a_flood_of_connections_leaves_running_streams_their_turn() -> None:
    async with serve_face(connections_max=3000) as served, contextlib.AsyncExitStack() as stack:
        stream = await stack.enter_async_context(await served.connect())
        await stream.send(chat(stream=True))
        [asked] = await served.generator.wait_asked()
        flood: list[Client] = []
        for number in range(10):
            flood += [served.connect_unseen() for _ in range(100)]
            for client in flood[-50:]:
                client.send_unseen(LIVE)
            asked.push(f"<{number}>")
            with trio.fail_after(PATIENCE_S):
                await stream.read_until(b"<%d>" % number)
        for client in flood:
            await client.reset()
        assert asked.cancelled is None


async def test_who_asks_how_the_server_is_does_not_wait_for_those_who_ask_for_tokens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serve_face() as served, contextlib.AsyncExitStack() as stack:
        submit = served.generator.submit

        def submit_at_cost(*arguments: Any, **more: Any) -> int:
            time.sleep(0.01)
            return submit(*arguments, **more)

        monkeypatch.setattr(served.generator, "submit", submit_at_cost)
        flood = [await stack.enter_async_context(await served.connect()) for _ in range(100)]
        probe = await stack.enter_async_context(await served.connect())
        await trio.testing.wait_all_tasks_blocked()
        for client in flood:
            client.send_unseen(chat())  # all at once: a second of work
        probe.send_unseen(LIVE)
        began_s = time.perf_counter()
        assert (await probe.read_answer()).status == 200
        assert time.perf_counter() - began_s < 0.5
        assert len(await served.generator.wait_asked(100)) == 100
