"""What a client asks: requests as the local protocol has them."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from rbee.client.errors import BadRequestError
from rbee.client.place import socket_path
from rbee.client.talk import Links, Talk
from rbee.local_wire import Request

TIMEOUT_S: Final = 300.0

_CHAT: Final = "/v1/chat/completions"
_COMPLETE: Final = "/v1/completions"

Messages = Sequence[Mapping[str, Any]]

# What timeouts are told as, at least and at most: a millisecond is the last digit, and no
# configuration lets a request take longer than a day.
_TIMEOUT_S_MIN: Final = 0.001
_TIMEOUT_S_MAX: Final = 86_400.0


class Asker:
    """Makes the requests of one client. Its arguments are those of `Client`."""

    def __init__(
        self, run_dir: str | os.PathLike[str] | None, key: str, timeout_s: float | None
    ) -> None:
        self._timeout_s = _checked(timeout_s)
        self._authorization = f"Bearer {key}" if key else ""
        self.links: Final = Links(socket_path(run_dir))

    def talk(
        self,
        method: str,
        path: str,
        body: object = None,
        timeout_s: float | None = None,
        correlation_id: str = "",
    ) -> Talk:
        """A request that is ready to begin.

        Args:
          timeout_s: None: the client's own; infinite: as long as the server lets it.

        Raises:
          BadRequestError: the local protocol has no form for what is given.
        """
        timeout_s = self._timeout_s if timeout_s is None else _checked(timeout_s)
        said = {
            "method": method,
            "path": path,
            "authorization": self._authorization,
            "correlation_id": correlation_id,
            "timeout": "" if timeout_s is None else f"{timeout_s:.3f}",
        }
        try:
            request = msgspec.convert(said, Request)
        except msgspec.ValidationError as error:
            raise BadRequestError(str(error)) from None
        raw = b"" if body is None else _encode(body)
        return Talk(self.links, request, raw, timeout_s)

    def chat(
        self,
        messages: Messages,
        timeout_s: float | None,
        correlation_id: str,
        body: dict[str, object],
    ) -> Talk:
        try:
            body = {"messages": list(messages), **body}
        except TypeError:
            found = type(messages).__name__
            raise BadRequestError(f"messages must be a list of messages, got {found}") from None
        return self.talk("POST", _CHAT, body, timeout_s, correlation_id)

    def complete(
        self, prompt: str, timeout_s: float | None, correlation_id: str, body: dict[str, object]
    ) -> Talk:
        return self.talk("POST", _COMPLETE, {"prompt": prompt, **body}, timeout_s, correlation_id)


def _checked(timeout_s: float | None) -> float | None:
    """A timeout as it is told; None: the server's own.

    Raises:
      BadRequestError: it is not above 0, or no number.
    """
    if timeout_s is None or timeout_s == math.inf:
        return None
    try:
        is_above = timeout_s > 0  # NaN is not
    except TypeError:
        found = type(timeout_s).__name__
        raise BadRequestError(f"timeout_s must be a number, got {found}") from None
    if not is_above:
        raise BadRequestError(f"timeout_s must be above 0, got {timeout_s}")
    return min(max(timeout_s, _TIMEOUT_S_MIN), _TIMEOUT_S_MAX)


def _encode(body: object) -> bytes:
    """A body in JSON.

    Raises:
      BadRequestError: JSON has no form for it.
    """
    try:
        raw = msgspec.json.encode(body)
        if b"null" in raw:  # this is how the encoder spells NaN and infinities, too
            json.dumps(msgspec.to_builtins(body, str_keys=True), allow_nan=False)
    except TypeError as error:  # names the type, not what it holds
        raise BadRequestError(f"the body holds what JSON cannot say: {error}") from None
    except (ValueError, RecursionError):
        problem = "a number that is not finite, half a surrogate pair, or too many levels"
        raise BadRequestError(f"the body holds what JSON cannot say: {problem}") from None
    return raw
