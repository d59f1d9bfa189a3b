"""Both faces give the same answers: made requests are sent to a server with the lane and to one
without it, and what comes back is compared, with what the log says of it.

Left out of the comparison, and why: the date; ids that a server draws; how a stream is cut into
chunks (HTTP lets any reader do that); how long it took; and of a large request that is refused
early, whether the connection goes on: it does if all of the body had come by then.
"""

import os
import random
import re
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

import trio
import trio.testing

from rbee.ask import Ask, TokenLogprob
from rbee.config import ServerConfig
from rbee.errors import ErrorCode, RequestError
from rbee.supervisor.api.ports import Sink
from tests.api.fake_generator import Asked, FakeGenerator
from tests.api.served import Served, serve_face
from tests.lane.made_requests import LARGE_BYTES, make

COUNT: Final = int(os.environ.get("RBEE_TEST_COMPARISONS", "700"))  # connections, of 1-4 requests
PAIRS: Final = 8  # of servers, side by side
SEED: Final = int(os.environ.get("RBEE_TEST_SEED", "1"))
TIMEOUT_S: Final = 0.4  # for heads and bodies: some of the made requests never end

_DRAWN: Final = re.compile(rb"(chatcmpl-|cmpl-)[0-9a-z]+")
_CORRELATION: Final = re.compile(rb'("correlation_id": ?")[^"]*"')


class ScriptedGenerator(FakeGenerator):
    """Answers each ask by what it says: the same ask, the same answer."""

    def submit(self, asks: Sequence[Ask], sinks: Sequence[Sink], **more: Any) -> list[int]:
        [ask, *_] = asks
        if "[full]" in _text(ask):
            raise RequestError(ErrorCode.QUEUE_FULL, "the queue is full", retry_after_s=2.0)
        if ask.model == "none":
            raise RequestError(ErrorCode.MODEL_NOT_FOUND, "no such model", param="model")
        return super().submit(asks, sinks, **more)

    async def answer_all(self) -> None:
        done = 0
        while True:
            await self.wait_asked(done + 1)
            await self._answer(self.asked[done])
            done += 1

    async def _answer(self, asked: Asked) -> None:
        text = _text(asked.ask)
        if "[fail-first]" not in text:
            for number in range(min(asked.ask.tokens_max or 4, 4)):
                is_last = number == min(asked.ask.tokens_max or 4, 4) - 1
                finish = "length" if is_last and "[fail-later]" not in text else None
                logprobs = (_logprob(number),) if asked.ask.sampling.logprobs is not None else ()
                asked.push(f"{number}\u00fc ", finish=finish, logprobs=logprobs)  # type: ignore[arg-type]
        if "[fail" in text:
            # A status that has left is not taken back: give it the time to leave, on both.
            await trio.testing.wait_all_tasks_blocked(0.005)
            asked.fail(RequestError(ErrorCode.WORKER_FAILED, "the worker ended"))


def _text(ask: Ask) -> str:
    return (ask.prompt or "") + "".join(message.content for message in ask.messages)


def _logprob(number: int) -> TokenLogprob:
    return TokenLogprob(number, b"%d" % number, -0.5, ((number, b"%d" % number, -0.5),))


@dataclass(frozen=True)
class Told:
    """One answer, without what may differ."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    is_whole: bool


async def ask(served: Served, sent: bytes) -> list[Told]:
    """Send, and read until the server ends the connection."""
    async with await served.connect() as client, trio.open_nursery() as nursery:

        async def send() -> None:
            try:
                await client.stream.send_all(sent)
            except trio.BrokenResourceError:
                return

        nursery.start_soon(send)
        received = await client.read_all()
        nursery.cancel_scope.cancel(reason="the server has ended it")
    return read_answers(received, sent)


def read_answers(received: bytes, sent: bytes) -> list[Told]:
    told: list[Told] = []
    while received:
        head, found, received = received.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        status = int(status_line.split(" ")[1])
        pairs = [line.split(": ", 1) for line in lines]
        headers = {name.lower(): value for name, value in pairs}
        assert len(headers) == len(pairs), f"a header was sent twice: {head!r}"
        is_whole = bool(found)
        if status == 100:
            told.append(Told(100, [], b"", is_whole))
            continue
        if not received or received.startswith(b"HTTP/1.1 "):
            body = b""  # to HEAD, or none is allowed: no body begins like an answer
        elif headers.get("transfer-encoding") == "chunked":
            body, received, is_whole = _dechunk(received)
        else:
            size = int(headers.get("content-length", len(received)))
            body, received, is_whole = received[:size], received[size:], len(received) >= size
        told.append(_mask(status, headers, body, sent, is_whole=is_whole))
    return told


def _dechunk(received: bytes) -> tuple[bytes, bytes, bool]:
    body = b""
    while True:
        size_line, found, received = received.partition(b"\r\n")
        if not found:
            return body, b"", False
        size = int(size_line, 16)
        part, received = received[:size], received[size + 2 :]
        body += part
        if size == 0:
            return body, received, True


def _mask(
    status: int, headers: dict[str, str], body: bytes, sent: bytes, *, is_whole: bool
) -> Told:
    # What is refused before it was read has no Date.
    assert headers.pop("date", None) or headers.get("connection") == "close"
    if headers["x-correlation-id"].encode("latin-1") not in sent:
        headers["x-correlation-id"] = "drawn"
        body = _CORRELATION.sub(rb'\1drawn"', body)
    body = _DRAWN.sub(rb"\1drawn", body)
    # An error's length, and that of a whole answer, hangs on no id: all ids are equally long.
    return Told(status, sorted(headers.items()), body, is_whole)


def told_by_log(served: Served, sent: bytes) -> list[dict[str, Any]]:
    """In no order: a face may answer the next request before it writes the line of the last."""
    lines = [dict(line) for line in served.log.of("request_done")]
    for line in lines:
        del line["duration_s"]
        if line["correlation_id"].encode() not in sent:
            line["correlation_id"] = "drawn"
    return sorted(lines, key=repr)


async def compare(with_lane: Served, without: Served, sent: bytes) -> tuple[int, str | None]:
    """Returns: how many answers were compared, and the difference, if there is one."""
    outcomes = []
    for served in (with_lane, without):
        served.log.lines.clear()
        answers = await ask(served, sent)
        with trio.move_on_after(1):
            while any(not each.is_over for each in served.generator.asked):
                await trio.sleep(0.001)
        await trio.testing.wait_all_tasks_blocked(0.0005)
        errors = [line for line in served.log.lines if line[0] == "error"]
        lines = told_by_log(served, sent)
        if len(sent) > LARGE_BYTES:
            answers = answers[:1]
            lines = [line for line in lines if line["route"] != "/health/live"]
            for answer in answers:
                answer.headers[:] = [pair for pair in answer.headers if pair[0] != "connection"]
        outcomes.append((answers, lines, errors))
    if outcomes[0] == outcomes[1] and not outcomes[0][2]:
        return len(outcomes[0][0]), None
    return 0, f"sent {sent[:3000]!r}\nlane {outcomes[0]}\nhttp {outcomes[1]}"


async def test_with_and_without_the_lane_all_answers_are_the_same() -> None:
    answers = 0
    differences: list[str] = []

    async def work(number: int) -> None:
        nonlocal answers
        async with AsyncExitStack() as stack:
            pair = [
                await stack.enter_async_context(
                    serve_face(
                        has_lane=has_lane, generator=ScriptedGenerator(), patience_s=3600,
                        config=ServerConfig(body_timeout_s=TIMEOUT_S),
                        headers_timeout_s=TIMEOUT_S, linger_s=0.05,
                    )
                )
                for has_lane in (True, False)
            ]  # fmt: skip
            generators = await stack.enter_async_context(trio.open_nursery())
            for served in pair:
                assert isinstance(served.generator, ScriptedGenerator)
                generators.start_soon(served.generator.answer_all)
            for made_number in range(number, COUNT, PAIRS):
                sent = make(random.Random(f"{SEED} {made_number}"))
                count, difference = await compare(pair[0], pair[1], sent)
                answers += count
                if difference is not None:
                    differences.append(f"no. {made_number}: {difference}")
            generators.cancel_scope.cancel(reason="done")

    async with trio.open_nursery() as nursery:
        for number in range(PAIRS):
            nursery.start_soon(work, number)
    assert not differences, f"{len(differences)} of {COUNT}\n" + "\n\n".join(differences[:8])
    assert answers > COUNT  # of one connection mostly more than one
