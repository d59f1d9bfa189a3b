"""Many clients in one trio task each: every one posts, reads to the end, and posts again."""

import http.client
import io
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

import trio

ANSWER_TIMEOUT_S = 120


@dataclass
class Answer:
    """One streamed answer, taken apart."""

    status: int
    text: str = ""
    finish_reasons: list[str] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    usage: dict[str, int] | None = None
    is_ended: bool = False  # by [DONE]


async def ask(url: str, path: str, body: dict[str, Any]) -> Answer:
    """Post one request on a connection of its own, and read the whole stream."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    payload = json.dumps({**body, "stream": True}).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(payload)}\r\nConnection: close\r\n\r\n"
    )
    raw = bytearray()
    with trio.fail_after(ANSWER_TIMEOUT_S):
        async with await trio.open_tcp_stream(parts.hostname, parts.port) as stream:
            await stream.send_all(head.encode() + payload)
            while chunk := await stream.receive_some(1 << 16):
                raw += chunk
    return _take_apart(bytes(raw))


class _Received:
    """As much of a socket as `http.client` wants."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._raw)


def _take_apart(raw: bytes) -> Answer:
    response = http.client.HTTPResponse(cast(Any, _Received(raw)))
    response.begin()
    answer = Answer(response.status)
    texts: list[str] = []
    for line in response.read().split(b"\n"):
        if not line.startswith(b"data: "):
            continue
        if line == b"data: [DONE]":
            answer.is_ended = True
            continue
        event = json.loads(line[6:])
        if "error" in event:
            answer.errors.append(event["error"])
        for choice in event.get("choices", ()):
            texts.append(choice.get("text") or (choice.get("delta") or {}).get("content") or "")
            if choice.get("finish_reason"):
                answer.finish_reasons.append(choice["finish_reason"])
        answer.usage = event.get("usage") or answer.usage
    answer.text = "".join(texts)
    return answer


async def keep_asking(
    url: str,
    bodies: list[dict[str, Any]],
    clients: int,
    is_over: Callable[[], bool],
) -> list[tuple[int, Answer]]:
    """Let so many clients ask, each again as soon as it is answered, until it is over.

    Returns:
      Each answer with the index of its body.
    """
    answers: list[tuple[int, Answer]] = []
    turns = itertools.count()

    async def client() -> None:
        while not is_over():
            index = next(turns) % len(bodies)
            answers.append((index, await ask(url, "/v1/chat/completions", bodies[index])))

    async with trio.open_nursery() as nursery:
        for _ in range(clients):
            nursery.start_soon(client)
    return answers
