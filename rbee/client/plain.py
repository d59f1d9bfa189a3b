"""`Client`: it blocks the thread that calls it, and needs no other one of Python's."""

import os
import select
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, overload

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
from rbee.client.link import Steps, Wait
from rbee.client.talk import Talk

T = TypeVar("T")


class Client:
    """A client of the server on this machine. Several threads may use one, but no forked child.

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
    cannot be said.
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
    def chat(
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
    def chat(
        self,
        messages: Messages,
        *,
        model: str,
        stream: Literal[True],
        timeout_s: float | None = None,
        correlation_id: str = "",
        **parameters: object,
    ) -> "Stream": ...

    def chat(
        self,
        messages: Messages,
        *,
        model: str,
        stream: bool = False,
        timeout_s: float | None = None,
        correlation_id: str = "",
        **parameters: object,
    ) -> "Completion | Stream":
        """Ask for the next message of a conversation.

        Args:
          timeout_s: None: the client's own; infinite: as long as the server lets it.
          parameters: more of the request's body, as ``max_tokens``; docs/api.md lists them.
        """
        body = {"model": model, "stream": stream, **parameters}
        talk = self._asker.chat(messages, timeout_s, correlation_id, body)
        return _stream(talk) if stream else as_completion(_whole(talk))

    @overload
    def complete(
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
    def complete(
        self,
        prompt: str,
        *,
        model: str,
        stream: Literal[True],
        timeout_s: float | None = None,
        correlation_id: str = "",
        **parameters: object,
    ) -> "Stream": ...

    def complete(
        self,
        prompt: str,
        *,
        model: str,
        stream: bool = False,
        timeout_s: float | None = None,
        correlation_id: str = "",
        **parameters: object,
    ) -> "Completion | Stream":
        """Ask for what follows a text. The arguments are those of `chat`."""
        body = {"model": model, "stream": stream, **parameters}
        talk = self._asker.complete(prompt, timeout_s, correlation_id, body)
        return _stream(talk) if stream else as_completion(_whole(talk))

    def models(self) -> list[dict[str, Any]]:
        """The models that can be asked for, as ``GET /v1/models`` lists them."""
        models: list[dict[str, Any]] = member(self.request("GET", "/v1/models"), "data")
        return models

    def health(self) -> str:
        """Whether the server is ready: "ok", or "starting", "draining", "unavailable"."""
        return str(member(self.request("GET", "/health/ready"), "status"))

    def cancel(self, request_id: str) -> bool:
        """End a request that runs, by its id or its correlation id. False: there is none."""
        response = self.request("DELETE", f"/v1/requests/{request_id}")
        return bool(member(response, "cancelled"))

    def request(self, method: str, path: str, body: object = None) -> Response:
        """Ask on any route of docs/api.md. What the server refuses is a response, too."""
        return _whole(self._asker.talk(method, path, body))

    def close(self) -> None:
        """End all that runs, and give everything back. Not while another thread is in a call."""
        self._asker.links.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()


class Stream(Coming):
    """An answer that is coming: iterate over its deltas.

    The request ends when its last delta was taken, at `close`, at the end of a ``with``, or when
    nobody holds this any more. Iterating may raise what every call of `Client` may.
    """

    def __iter__(self) -> Iterator[Delta]:
        return self

    def __next__(self) -> Delta:
        while (delta := self._take()) is None:
            part = _run(self._talk, self._talk.next_part())
            if part is None:
                raise StopIteration
            self._receive(part)
        return delta

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()


def _whole(talk: Talk) -> Response:
    head = _run(talk, talk.begin())
    return as_response(head, _run(talk, talk.rest()))


def _stream(talk: Talk) -> Stream:
    head = _run(talk, talk.begin())
    if head.status != 200:
        checked(as_response(head, _run(talk, talk.rest())))
    return Stream(talk, head)


def _run(talk: Talk, steps: Steps[T]) -> T:
    """Run what may have to wait. Interrupted, it ends the request."""
    try:
        wait = next(steps)
        while True:
            wait = steps.send(_wait(wait))
    except StopIteration as end:
        result: T = end.value
        return result
    except BaseException:
        steps.close()
        talk.leave()
        raise


def _wait(wait: Wait) -> bool:
    poll = select.poll()
    poll.register(wait.fd, select.POLLIN)
    timeout_ms = None if wait.timeout_s is None else max(0.0, wait.timeout_s) * 1000
    return bool(poll.poll(timeout_ms))
