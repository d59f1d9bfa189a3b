"""What a client asks: requests as the local protocol has them."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from rbee.client.place import socket_path
from rbee.client.talk import Links, Talk
from rbee.local_wire import Request

TIMEOUT_S: Final = 300.0

_CHAT: Final = "/v1/chat/completions"
_COMPLETE: Final = "/v1/completions"

Messages = Sequence[Mapping[str, Any]]


class Asker:
    """Makes the requests of one client. Its arguments are those of `Client`."""

    def __init__(
        self, run_dir: str | os.PathLike[str] | None, key: str, timeout_s: float | None
    ) -> None:
        self.links: Final = Links(socket_path(run_dir))
        self._authorization = f"Bearer {key}" if key else ""
        self._timeout_s = timeout_s

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
          ValueError: the local protocol has no form for what is given.
        """
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        timeout_s = None if timeout_s == math.inf else timeout_s
        said = {
            "method": method,
            "path": path,
            "authorization": self._authorization,
            "correlation_id": correlation_id,
            "timeout": "" if timeout_s is None else f"{timeout_s:.3f}",
        }
        raw = b"" if body is None else msgspec.json.encode(body)
        return Talk(self.links, msgspec.convert(said, Request), raw, timeout_s)

    def chat(
        self,
        messages: Messages,
        timeout_s: float | None,
        correlation_id: str,
        body: dict[str, object],
    ) -> Talk:
        body = {"messages": list(messages), **body}
        return self.talk("POST", _CHAT, body, timeout_s, correlation_id)

    def complete(
        self, prompt: str, timeout_s: float | None, correlation_id: str, body: dict[str, object]
    ) -> Talk:
        return self.talk("POST", _COMPLETE, {"prompt": prompt, **body}, timeout_s, correlation_id)
