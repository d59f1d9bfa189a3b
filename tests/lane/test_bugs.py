"""Bugs end the request or the connection that met them, and nothing else."""

import errno
from typing import Any

import pytest
import trio
import trio.testing

from rbee.errors import ErrorCode, RequestError
from rbee.supervisor.api.hot import HotGet
from tests.api.served import LIVE, chat, serve_face
from tests.http_server.harness import AT_ONCE_S, MOMENT_S


class PlantedError(Exception):
    pass


def _raise(*_: Any, **__: Any) -> Any:
    raise PlantedError


PLANTED = {
    "a route": "hot.gets",
    "what all pass, at the begin": "arrive",
    "what all pass, in the middle": "admit",
    "what all pass, before the answer": "dress",
    "what all pass, at the end": "depart",
}


@pytest.mark.parametrize("where", PLANTED.values(), ids=PLANTED)
async def test_a_bug_in_the_face_ends_one_connection_and_is_logged(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve_face() as served, await served.connect() as client:
        await client.send(chat(stream=True))
        [running] = await served.generator.wait_asked()
        running.push("1 ")
        with monkeypatch.context() as patch:
            if where == "hot.gets":
                patch.setitem(served.face.hot.gets, "/health/live", HotGet(_raise, is_quiet=True))
            else:
                patch.setattr(served.face.guard, where, _raise)
            async with await served.connect() as victim:
                await victim.send(LIVE)
                with trio.fail_after(AT_ONCE_S):
                    answer = await victim.read_all() if where in ("arrive", "dress") else b""
                    if where in ("hot.gets", "admit"):
                        assert (await victim.read_answer()).error["code"] == "internal_error"
                assert answer == b""
        assert "PlantedError" in str(served.errors)
        running.push("2 ", finish="stop")
        await client.read_until(b"[DONE]\n\n\r\n0\r\n\r\n")
        await client.send(LIVE)
        assert (await client.read_answer()).status == 200


async def test_a_bug_while_a_generation_is_told_ends_its_connection_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for stream in (True, False):
        async with serve_face() as served, await served.connect() as client:
            await client.send(chat(stream=stream))
            [asked] = await served.generator.wait_asked()
            with monkeypatch.context() as patch:
                patch.setattr(served.face.guard, "dress", _raise)
                with pytest.raises(PlantedError):  # the pool logs it: its rule 3
                    asked.push("1 ", finish=None if stream else "stop")
            with trio.fail_after(AT_ONCE_S):
                assert await client.read_all() == b""
            assert asked.cancelled == ("internal_error" if stream else None)
            [line] = served.log.of("request_done")
            assert line["outcome"] == "internal_error"
            assert await served.is_alive()


async def test_a_bug_in_the_machine_ends_one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve_face() as served:
        async with await served.connect() as client:
            with monkeypatch.context() as patch:
                patch.setattr("rbee.supervisor.lane.machine.Machine.next_event", _raise)
                await client.send(LIVE)
                with trio.fail_after(AT_ONCE_S):
                    assert await client.read_all() == b""
        [(_, event, fields)] = served.errors
        assert (event, fields["error"]) == ("connection_failed", f"{__name__}.PlantedError")
        assert await served.is_alive()


async def test_a_bug_in_the_generator_is_answered_and_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serve_face() as served, await served.connect() as client:
        monkeypatch.setattr(served.generator, "submit", _raise)
        await client.send(chat(n=2))
        answer = await client.read_answer()
        assert (answer.status, answer.error["code"]) == (500, "internal_error")
        await client.send(LIVE)
        assert (await client.read_answer()).status == 200


async def test_an_ask_that_fails_while_its_order_is_submitted_ends_the_request_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serve_face() as served, await served.connect() as client:
        submit, generator = served.generator.submit, served.generator

        def submit_badly(*args: Any, **more: Any) -> list[int]:
            request_ids = submit(*args, **more)
            generator.asked[0].fail(RequestError(ErrorCode.WORKER_FAILED, "it ended"))
            return request_ids

        with monkeypatch.context() as patch:
            patch.setattr(generator, "submit", submit_badly)
            await client.send(chat(n=2))
            answer = await client.read_answer()
        assert answer.error["code"] == "worker_failed"
        assert [each.is_over for each in generator.asked] == [True, True]
        assert generator.asked[1].cancelled == "worker_failed"
        assert len(served.log.of("request_done")) == 1
        await client.send(LIVE)
        assert (await client.read_answer()).status == 200
        assert served.errors == []


async def test_a_connection_that_cannot_be_watched_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serve_face() as served:
        await trio.testing.wait_all_tasks_blocked()
        assert served.lane is not None
        epoll = served.lane._epoll

        class Full:
            """The kernel's limit on watches is reached."""

            def __getattr__(self, name: str) -> Any:
                return getattr(epoll, name)

            def register(self, *_: Any) -> None:
                raise OSError(errno.ENOSPC, "no space")

        with monkeypatch.context() as patch:
            patch.setattr(served.lane, "_epoll", Full())
            async with await served.connect() as client:
                assert await client.read_all() == b""
        assert served.log.of("accept_failed")[0]["error"] == "ENOSPC"
        await trio.sleep(MOMENT_S)
        assert await served.is_alive()
