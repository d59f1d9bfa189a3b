"""The face behind the real HTTP server, on real sockets, asked by the official client.

Each test runs on the lane, and without it: nobody may see a difference.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import openai
import pytest
import trio
from openai.types.chat import ChatCompletionChunk

from rbee.ask import Ask
from rbee.errors import ErrorCode, RequestError
from tests.api.face import CHAT
from tests.api.fake_generator import Asked
from tests.api.served import Serving, chat, count_to_five, serve_face


@pytest.fixture(params=[True, False], ids=["lane", "without the lane"])
def serving(request: pytest.FixtureRequest) -> Serving:
    return functools.partial(serve_face, has_lane=request.param)


async def in_thread(function: Callable[[], Any]) -> Any:
    return await trio.to_thread.run_sync(function)


async def test_the_official_client_gets_an_answer(serving: Serving) -> None:
    async with serving(count_to_five) as served:
        with served.openai() as client:

            def ask() -> Any:
                return client.chat.completions.create(**CHAT, max_completion_tokens=9)  # type: ignore[call-overload]

            answer = await in_thread(ask)
            models = await in_thread(client.models.list)
    assert answer.choices[0].message.content == "1 2 3 4 5 "
    assert answer.usage.completion_tokens == 5
    assert [each.id for each in models.data] == ["bee-tiny", "org/large"]
    wanted: Ask = served.generator.asked[0].ask
    assert wanted.tokens_max == 9


async def test_the_official_client_streams_on_one_connection_again_and_again(
    serving: Serving,
) -> None:
    async with serving(count_to_five) as served:
        with served.openai() as client:

            def ask() -> list[ChatCompletionChunk]:
                return list(
                    client.chat.completions.create(  # type: ignore[call-overload]
                        **CHAT, stream=True, stream_options={"include_usage": True}
                    )
                )

            for _ in range(3):
                chunks = await in_thread(ask)
                told = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
                assert told == "1 2 3 4 5 "
                assert chunks[-1].usage is not None
                assert chunks[-1].usage.completion_tokens == 5
    assert [each["outcome"] for each in served.log.of("request_done")] == ["ok"] * 3


async def test_the_official_client_raises_what_the_error_is(serving: Serving) -> None:
    def fail(asked: Asked) -> None:
        asked.fail(RequestError(ErrorCode.CONTEXT_LENGTH_EXCEEDED, "too long", param="messages"))

    async with serving(fail) as served:
        with served.openai() as client:

            def ask() -> Any:
                return client.chat.completions.create(**CHAT)  # type: ignore[call-overload]

            def ask_wrongly() -> Any:
                return client.chat.completions.create(**CHAT, temperature=9)  # type: ignore[call-overload]

            with pytest.raises(openai.BadRequestError) as caught:
                await in_thread(ask)
            assert caught.value.code == "context_length_exceeded"
            assert caught.value.param == "messages"
            with pytest.raises(openai.BadRequestError, match="temperature"):
                await in_thread(ask_wrongly)


async def test_the_official_client_raises_when_a_stream_fails_in_the_middle(
    serving: Serving,
) -> None:
    async with serving(lambda asked: asked.push("1 ")) as served:
        with served.openai() as client:
            seen: list[str] = []

            def ask() -> None:
                for chunk in client.chat.completions.create(**CHAT, stream=True):  # type: ignore[call-overload]
                    seen.append(chunk.choices[0].delta.content)
                    if len(seen) == 2:
                        error = RequestError(ErrorCode.WORKER_FAILED, "the worker ended")
                        trio.from_thread.run_sync(served.generator.asked[0].fail, error)

            with pytest.raises(openai.APIError, match="the worker ended"):
                await in_thread(ask)
    assert seen == ["", "1 "]


async def test_a_client_that_goes_in_the_middle_ends_its_request_within_200_ms(
    serving: Serving,
) -> None:
    for stream in (True, False):
        async with serving() as served:
            client = await served.connect()
            await client.send(chat(stream=stream))
            [asked] = await served.generator.wait_asked()
            asked.push("1 ")
            if stream:
                await client.read_until(b'"1 "')
            await client.stream.aclose()
            with trio.fail_after(0.2):
                await served.generator.wait_cancelled()


async def test_a_client_that_does_not_read_is_cut_off_and_the_others_are_not(
    serving: Serving,
) -> None:
    async with serving(parked_bytes_max=16 * 1024) as served:
        stuck = await served.connect(receive_bytes=4096)
        await stuck.send(chat(stream=True))
        [asked] = await served.generator.wait_asked()
        asked.push("1 ")
        await stuck.read_until(b'"1 "')
        with trio.fail_after(5):
            while asked.cancelled is None:
                asked.push("x" * 8192)
                await trio.lowlevel.checkpoint()
        assert asked.cancelled == "slow_client"
        async with await served.connect() as other:
            await other.send(chat(stream=True))
            await served.generator.wait_asked(2)
            count_to_five(served.generator.asked[1])
            await other.read_until(b"[DONE]")
        await stuck.stream.aclose()


async def test_a_client_of_http_1_0_gets_its_stream_without_the_direct_way(
    serving: Serving,
) -> None:
    async with serving(count_to_five) as served, await served.connect() as client:
        await client.send(chat(stream=True, version=b"1.0"))
        answer = await client.read_all()
    assert answer.startswith(b"HTTP/1.")
    assert answer.count(b"data: ") == 8
    assert answer.endswith(b"data: [DONE]\n\n")


async def test_a_body_that_is_too_large_is_answered_before_it_was_sent(serving: Serving) -> None:
    async with serving() as served, await served.connect() as client:
        head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
        await client.send(head + b"Content-Length: 99999999\r\n\r\n{")
        answer = await client.read_all()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"body_too_large"' in answer


async def test_a_chunked_body_without_end_is_stopped_at_the_limit(serving: Serving) -> None:
    async with serving() as served:
        client = await served.connect()
        head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
        await client.send(head + b"Transfer-Encoding: chunked\r\n\r\n")

        async def send_on() -> None:
            with contextlib.suppress(trio.BrokenResourceError):
                for _ in range(1024):
                    await client.send(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_on)
            answer = await client.read_until(b"}}")
            nursery.cancel_scope.cancel(reason="the answer is here")
        await client.stream.aclose()
    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_head_and_get_share_a_connection(serving: Serving) -> None:
    async with serving() as served, await served.connect() as client:
        for method in (b"HEAD", b"GET", b"HEAD", b"GET"):
            await client.send(method + b" /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            end = b'"ok"}' if method == b"GET" else b"\r\n\r\n"
            answer = await client.read_until(end)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert (b'{"status"' in answer) == (method == b"GET")
