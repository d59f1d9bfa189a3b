"""`AsyncClient`: `Client` for trio and asyncio, without threads and without tasks of its own."""

import os
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Literal, Self, overload

from rbee.client.answers import (
    Completion,
    Delta,
    Response,
    as_completion,
    as_response,
    checked,
    member,
)
from rbee.client.asking import TIMEOUT_S, Asker, Messages
from rbee.client.coming import Coming
from rbee.client.talk import Talk
from rbee.client.waiting import run


class AsyncClient:
    """`Client` for a program on trio or on asyncio. Several tasks may use one, at the same time.

    Args:
      run_dir: the server's run directory; None: that of ./rbee.toml, else the default.
      key: an API key or a JWT, where the server asks for one.
      timeout_s: what a request may take in all if it says nothing itself; None: as long as the
        server lets it.
    Raises:
      ConfigError: ./rbee.toml is there and cannot be used.
      BadRequestError: the timeout is not above 0.

    Every call may raise a `ClientError`: `AnswerError` where the server refuses, `ServerGoneError`
    where none is there, `TimedOutError` where the time is over, `BadRequestError` where something
    cannot be said. A call that is cancelled ends its request.
    """

    def __init__(
        self,
        run_dir: str | os.PathLike[str] | None = None,
        *,
        key: str = "",
        timeout_s: float | None = TIMEOUT_S,
    ) -> None:
        self._asker = Asker(run_dir, key, timeout_s)

    @overload
    async def chat(
        self,
        messages: Messages,
        *,
        model: str,
        stream: Literal[False] = False,
        timeout_s: float | None = None,
        correlation_id: str = "",
        **parameters: object,
    ) -> Completion: ...

    @overload
    async def chat(
        self,
        messages: Messages,
        *,
        model: str,
        stream: Literal[True],
        timeout_s: float | None = None,
        correlation_id: str = "",
        **parameters: object,
    ) -> "AsyncStream": ...

    async def chat(
        self,
        messages: Messages,
        *,
        model: str,
        stream: bool = False,
        timeout_s: float | None = None,
        correlation_id: str = "",
        **parameters: object,
    ) -> "Completion | AsyncStream":
        """Ask for the next message of a conversation.

        Args:
          timeout_s: None: the client's own; infinite: as long as the server lets it.
          parameters: more of the request's body, as ``max_tokens``; docs/api.md lists them.
        """
        body = {"model": model, "stream": stream, **parameters}
        talk = self._asker.chat(messages, timeout_s, correlation_id, body)
        return await _stream(talk) if stream else as_completion(await _whole(talk))

    @overload
    async def complete(
        self,
        prompt: str,
        *,
        model: str,
        stream: Literal[False] = False,
        timeout_s: float | None = None,
        correlation_id: str = "",
        **parameters: object,
    ) -> Completion: ...

    @overload
    async def complete(
        self,
        prompt: str,
        *,
        model: str,
        stream: Literal[True],
        timeout_s: float | None = None,
        correlation_id: str = "",
        **parameters: object,
    ) -> "AsyncStream": ...

    async def complete(
        self,
        prompt: str,
        *,
        model: str,
        stream: bool = False,
        timeout_s: float | None = None,
        correlation_id: str = "",
        **parameters: object,
    ) -> "Completion | AsyncStream":
        """Ask for what follows a text. The arguments are those of `chat`."""
        body = {"model": model, "stream": stream, **parameters}
        talk = self._asker.complete(prompt, timeout_s, correlation_id, body)
        return await _stream(talk) if stream else as_completion(await _whole(talk))

    async def models(self) -> list[dict[str, Any]]:
        """The models that can be asked for, as ``GET /v1/models`` lists them."""
        models: list[dict[str, Any]] = member(await self.request("GET", "/v1/models"), "data")
        return models

    async def health(self) -> str:
        """Whether the server is ready: "ok", or "starting", "draining", "unavailable"."""
        return str(member(await self.request("GET", "/health/ready"), "status"))

    async def cancel(self, request_id: str) -> bool:
        """End a request that runs, by its id or its correlation id. False: there is none."""
        response = await self.request("DELETE", f"/v1/requests/{request_id}")
        return bool(member(response, "cancelled"))

    async def request(self, method: str, path: str, body: object = None) -> Response:
        """Ask on any route of docs/api.md. What the server refuses is a response, too."""
        return await _whole(self._asker.talk(method, path, body))

    def close(self) -> None:
        """End all that runs, and give everything back. Who is in a call gets `ServerGoneError`."""
        self._asker.links.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncStream(Coming):
    """An answer that is coming: iterate over its deltas.

    The request ends when its last delta was taken, at `close`, at the end of an ``async with``, or
    when nobody holds this any more. Iterating may raise what every call of `AsyncClient` may, and
    ends the request when it is cancelled.
    """

    def __aiter__(self) -> AsyncIterator[Delta]:
        return self

    async def __anext__(self) -> Delta:
        while (delta := self._take()) is None:
            part = await run(self._talk, self._talk.next_part())
            if part is None:
                raise StopAsyncIteration
            self._receive(part)
        return delta

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()


async def _whole(talk: Talk) -> Response:
    head = await run(talk, talk.begin())
    return as_response(head, await run(talk, talk.rest()))


async def _stream(talk: Talk) -> AsyncStream:
    head = await run(talk, talk.begin())
    if head.status != 200:
        checked(as_response(head, await run(talk, talk.rest())))
    return AsyncStream(talk, head)
