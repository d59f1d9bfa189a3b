"""Reads the body of a request, within its limits on size and time."""

import math
from collections.abc import Callable
from typing import Final, TypeVar

import trio
from starlette.types import Receive

from rbee.config import ServerConfig
from rbee.errors import ErrorCode, RequestError
from rbee.supervisor.api.asgi import receive_part
from rbee.supervisor.api.deadlines import deadline_exceeded
from rbee.supervisor.api.visit import Visit
from rbee.threads import thread_refusals

T = TypeVar("T")

# Larger bodies are parsed in a thread: a MiB of "[]," takes as long as some thousand deltas.
INLINE_BYTES_MAX: Final = 64 * 1024

# Bodies parsed in threads at once. More would only take turns at the interpreter.
PARSERS_MAX: Final = 2


class BodyReader:
    """Reads and parses bodies for all requests of one face."""

    def __init__(self, config: ServerConfig) -> None:
        self._bytes_max = config.body_bytes_max
        self._timeout_s = config.body_timeout_s
        self._parsers = trio.CapacityLimiter(PARSERS_MAX)

    async def read(
        self,
        visit: Visit,
        receive: Receive,
        parse: Callable[[bytes], T],
        deadline_s: float = math.inf,
    ) -> T:
        """Read a body of JSON and parse it.

        Args:
          deadline_s: the request's own, on trio's clock.
        Raises:
          RequestError: not JSON by its header, too large, too slow, or what ``parse`` finds.
          ClientGoneError: the client hung up before the end.
        """
        check_body_headers(visit)
        self._check_length(visit.values("content-length"))
        with trio.move_on_at(min(trio.current_time() + self._timeout_s, deadline_s)) as limit:
            raw = await self._read_all(receive)
        if limit.cancelled_caught:
            raise late_body(self._timeout_s, deadline_s, trio.current_time())
        if len(raw) <= INLINE_BYTES_MAX:
            return parse(raw)
        try:
            with thread_refusals():
                found = await trio.to_thread.run_sync(_try_to, parse, raw, limiter=self._parsers)
        except OSError:  # better late for some than never for this one
            return parse(raw)
        if isinstance(found, RequestError):
            try:
                raise found
            finally:
                del found  # else it would hold itself, and the body, until the collector comes
        return found

    async def _read_all(self, receive: Receive) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive_part(receive)
            part = message.get("body", b"")
            size += len(part)
            if size > self._bytes_max:
                raise self._too_large()
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)

    def _check_length(self, values: list[str]) -> None:
        """Refuse by the header what would be too large, before any of it is read."""
        if any(value.isdecimal() and int(value[:20]) > self._bytes_max for value in values):
            raise self._too_large()

    def _too_large(self) -> RequestError:
        message = f"the body is larger than {self._bytes_max} bytes"
        return RequestError(ErrorCode.BODY_TOO_LARGE, message)


def _try_to(parse: Callable[[bytes], T], raw: bytes) -> T | RequestError:
    """Parse in a thread. What a thread raises holds itself, by the frames that it passed."""
    try:
        return parse(raw)
    except RequestError as error:
        return error.with_traceback(None)


def check_body_headers(visit: Visit) -> None:
    """What a request says of its body.

    Raises:
      RequestError: it is not JSON as we take it.
    """
    _check_media_type(visit.values("content-type"))
    _check_encoding(visit.values("content-encoding"))


def late_body(timeout_s: float, deadline_s: float, now_s: float) -> RequestError:
    """Why a body is waited for no more: for its own sake, or as its request is late."""
    if now_s >= deadline_s:
        return deadline_exceeded()
    message = f"the body did not arrive within {timeout_s:g} s"
    return RequestError(ErrorCode.BODY_TIMEOUT, message)


def _check_media_type(values: list[str]) -> None:
    """A body must be JSON by its header, or have none."""
    for value in values:
        media_type, _, parameters = value.partition(";")
        charset = parameters.lower().replace(" ", "").replace('"', "")
        if media_type.strip().lower() != "application/json" or (
            "charset=" in charset and "charset=utf-8" not in charset
        ):
            raise RequestError(
                ErrorCode.UNSUPPORTED_MEDIA_TYPE,
                "the Content-Type must be application/json, in UTF-8",
            )


def _check_encoding(values: list[str]) -> None:
    """Compressed bodies are refused: their size is not known before they are unpacked."""
    if any(value.strip().lower() != "identity" for value in values):
        raise RequestError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, "a Content-Encoding is not supported")
