"""A client that streams, in a thread of its own, over a plain socket that a test can cut."""

import contextlib
import http.client
import json
import socket
import threading
import time
from typing import Any
from urllib.parse import urlsplit


class Stream:
    """One POST whose answer is read as it comes.

    Args:
      is_streamed: whether the body asks for a stream; its events are taken apart then.
      reads: False: a client that asks and then reads nothing.
      headers: beside the content type.
    """

    def __init__(
        self,
        url: str,
        path: str,
        body: dict[str, Any],
        *,
        is_streamed: bool = True,
        reads: bool = True,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.raw = b""
        self.events: list[Any] = []  # parsed "data:" lines; the last word stays a string
        self.is_over = threading.Event()
        self.has_begun = threading.Event()
        self.over_unix_s = 0.0
        self._is_streamed = is_streamed
        self._connection = Stream.connect(url, None if reads else 4096)
        payload = {**body, "stream": True} if is_streamed else body
        headers = {**(headers or {}), "content-type": "application/json"}
        self._connection.request("POST", path, json.dumps(payload), headers)
        self._socket: socket.socket = self._connection.sock
        self._thread = threading.Thread(target=self._read if reads else int, daemon=True)
        self._thread.start()

    @staticmethod
    def connect(url: str, receive_bytes: int | None = None) -> http.client.HTTPConnection:
        """An idle connection."""
        parts = urlsplit(url)
        assert parts.hostname is not None
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
        connection.sock = socket.socket()
        if receive_bytes is not None:  # a small window: what is not read stays at the server
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connection.sock.settimeout(60)
        connection.sock.connect((parts.hostname, parts.port))
        return connection

    @property
    def text(self) -> str:
        """The text of the first choice so far."""
        return "".join(
            choice.get("text") or (choice.get("delta") or {}).get("content") or ""
            for choice in self._choices()
        )

    @property
    def errors(self) -> list[dict[str, Any]]:
        chunks = (event for event in self.events if isinstance(event, dict))
        return [chunk["error"] for chunk in chunks if "error" in chunk]

    @property
    def finish_reasons(self) -> list[str]:
        reasons = (choice.get("finish_reason") for choice in self._choices())
        return [reason for reason in reasons if reason]

    def _choices(self) -> list[dict[str, Any]]:
        chunks = (event for event in self.events if isinstance(event, dict))
        return [choice for chunk in chunks for choice in chunk.get("choices", [])]

    def json(self) -> Any:
        return json.loads(self.raw)

    def wait_begun(self) -> "Stream":
        """Wait for the first text."""
        assert self.has_begun.wait(20), f"no text came: {self.status} {self.raw[:500]!r}"
        return self

    def wait_over(self, timeout_s: float = 60) -> "Stream":
        assert self.is_over.wait(timeout_s), f"not over: {self.raw[-300:]!r}"
        return self

    def cut(self) -> None:
        """Go away in the middle, as a client that was killed."""
        with contextlib.suppress(OSError):  # the server was quicker
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._connection.close()

    def _read(self) -> None:
        rest = b""
        try:
            response = self._connection.getresponse()
            self.headers = {name.lower(): value for name, value in response.getheaders()}
            self.status = response.status
            while chunk := response.read1(65_536):
                self.raw += chunk
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self._take(line)
        except (OSError, http.client.HTTPException):
            pass  # cut, by the test or by the server's end: `raw` has what came
        finally:
            self.over_unix_s = time.time()
            self._connection.close()
            self.is_over.set()

    def _take(self, line: bytes) -> None:
        if not self._is_streamed or not line.startswith(b"data: "):
            return
        data = line.removeprefix(b"data: ")
        self.events.append(data.decode() if data == b"[DONE]" else json.loads(data))
        if not self.has_begun.is_set() and self.text:
            self.has_begun.set()
