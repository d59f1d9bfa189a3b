"""What a scenario works with: one server, its streams and its last answer."""

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from socket import gethostname
from tempfile import gettempdir
from typing import Any

import httpx2
import msgspec

from rbee.supervisor.api.openapi.answers import Error
from rbee.supervisor.records import InstanceRecord, read_records
from tests.e2e.server import Server, synthetic_config, wait_until
from tests.e2e.stream import Stream


class World:
    """The state of one scenario. Closed at its end, whatever happened."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.servers: list[Server] = []
        self.streams: list[Stream] = []
        self.answer: httpx2.Response | None = None
        self.answer_s = 0.0
        self.pids: list[int] = []
        self.killed_s = 0.0
        self.second: Server | None = None
        self.lines: list[str] = []  # of a stream that was read to its end
        self._config = ""
        self.model = "synthetic"
        self.at_work = 0  # requests that were, at some moment
        self.instances: list[InstanceRecord] = []  # of each server that was started
        self.rss_bytes = 0
        self.tried: list[httpx2.Response] = []
        self._borrowed: Server | None = None
        self._client = httpx2.Client(timeout=30)  # keeps its connection, where the server does
        self.bearer = ""  # what is shown as credential
        self.bearers: Sequence[str] = ()
        self.site: Any = None  # where an issuer's keys are fetched from
        self.reading: Iterator[str] = iter(())  # the lines of a stream
        self.exits = contextlib.ExitStack()

    @property
    def server(self) -> Server:
        return self._borrowed or self.servers[-1]

    def borrow(self, server: Server) -> None:
        """Work with a server that others use as well, and that goes on after this scenario."""
        self._borrowed = server

    def take_text(self, text: str) -> None:
        """Use this as the whole configuration."""
        self._config = text

    def configure(self, *, head: str = "", model: str = "", synthetic: str = "") -> None:
        self._config = synthetic_config(head=head, model=model, synthetic=synthetic)

    def configure_bee_tiny(self, *, head: str, places: int) -> None:
        self.model = "bee-tiny"
        self._config = f'{head}[[model]]\nref = "bee-tiny"\nbatch_size = {places}\n'

    def start(self, *, until_ready: bool = True, through: Sequence[str] = ()) -> Server:
        server = Server(self.directory, self._config, through=through)
        self.servers.append(server)
        if until_ready:
            server.ready()
            self.pids = server.worker_pids()
            self.instances.extend(read_records(server.run_dir).instances)
        else:
            server.started()
        return server

    def start_all(self, through: Sequence[str] = ()) -> None:
        """Start it, and wait until every worker is ready: it serves with the first one."""
        server = self.start(through=through)
        wait_until(lambda: all(w["state"] == "ready" for w in server.workers()), 30, "all of them")
        self.pids = server.worker_pids()

    def server_through(self, through: Sequence[str]) -> Server:
        """One that is not expected to start."""
        return Server(self.directory, self._config, through=through)

    def send(self, path: str, body: dict[str, Any], **options: Any) -> httpx2.Response:
        begun_s = time.monotonic()
        self.answer = httpx2.post(self.server.url + path, json=body, timeout=60, **options)
        self.answer_s = time.monotonic() - begun_s
        return self.answer

    def try_(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """A request that may be wrong in whatever way."""
        self.answer = self._client.request(method, self.server.url + path, **options)
        self.tried.append(self.answer)
        return self.answer

    def expect_error(self, status: int, code: str) -> dict[str, Any]:
        """The error of the last answer: of that code, whole, and telling nothing of this box."""
        assert self.answer is not None
        answer = self.answer
        assert answer.status_code == status, answer.text
        error: dict[str, Any] = msgspec.to_builtins(
            msgspec.json.decode(answer.content, type=Error).error
        )
        assert error["code"] == code, answer.text
        assert error["correlation_id"] == answer.headers["x-correlation-id"]
        assert ("retry-after" in answer.headers) == (status in (429, 503))
        for told in (str(self.directory), gettempdir(), "127.0.0.1", gethostname(), ".py", "0x"):
            assert told not in answer.text
        return error

    def stream(self, prompt: str, tokens: int | None = None, *, streamed: bool = True) -> Stream:
        body: dict[str, Any] = {"model": "synthetic", "prompt": prompt}
        if tokens is not None:
            body["max_tokens"] = tokens
        stream = Stream(self.server.url, "/v1/completions", body, is_streamed=streamed)
        self.streams.append(stream)
        return stream

    def close(self) -> None:
        self._client.close()
        self.exits.close()
        for server in self.servers:
            server.close()
        if self.second is not None:
            self.second.close()
        for stream in self.streams:  # those that do not read are still open
            stream.cut()


def chat_body(prompt: str, more: str = "{}", model: str = "synthetic") -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        **json.loads(more),
    }


def numbers(count: int) -> str:
    """What the synthetic engine says in so many tokens."""
    return "".join(f"{number} " for number in range(count))
