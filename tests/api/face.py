"""The face under test, its surroundings, and a client that speaks ASGI to it."""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import trio
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Scope

from rbee.audit import NO_AUDIT
from rbee.config import ServerConfig
from rbee.errors import ErrorCode, RequestError
from rbee.metrics import Metrics
from rbee.supervisor.api.app import make_face, make_hot_routes, make_routes
from rbee.supervisor.api.generation import Surroundings
from rbee.supervisor.api.keys import NO_KEYS, key_routes
from rbee.supervisor.api.metrics import metrics_routes
from rbee.supervisor.api.open_requests import OpenRequests
from rbee.supervisor.api.revocations import revocation_routes
from rbee.supervisor.views import (
    BreakerView,
    CrashView,
    DiskView,
    GpuView,
    ModelView,
    Readiness,
    ShutdownView,
    WorkerView,
)
from tests.api.fake_generator import FakeGenerator

NOW_UNIX_S = 1_900_000_000.0  # 2030-03-17T17:46:40Z

WORKER = WorkerView(
    slot="bee-tiny-0", model="bee-tiny", engine="synthetic", state="ready", pid=4711, restarts=1,
    failures=0, last_failure="", retry_in_s=None, uptime_s=3.5, phase="idle", progress=None,
    beats=2, beat_age_s=0.1, steps=5, tokens=9, requests=0, batch_size=4, rss_bytes=1, cpu_s=0.5,
    vram_bytes=0,
    vram_reserved_bytes=None, held_by={"memory": "cgroup2"}, waits_for="",
    device="cpu", detail={"attention": "none"}, cause="", breaker="closed", remedy="",
    verdict="alive", concern="",
)  # fmt: skip
BREAKER = BreakerView(
    "bee-tiny", "crash", "open", ("bee-tiny-1",), "4 failures in a row", "look", None
)
GPU = GpuView(0, "a GPU", "hot", "it is hot", "process", 80, 60, 20, 91, 90.0)
DISK = DiskView("state_dir", "low", "1 of 100 bytes are free", 1, 100)
CRASH = CrashView(
    "20261123T145500.123Z-bee-tiny-0-4711", "2026-11-23T14:55:00.123Z", "bee-tiny-0", "bee-tiny",
    "synthetic", 4711, "crash", "ended by signal 11",
)  # fmt: skip


def every_route() -> list[Route]:
    """Every route that the face has."""
    operations, config = FakeOperations(), ServerConfig()
    open_requests = OpenRequests()
    surroundings = Surroundings(FakeGenerator(), open_requests)
    hot = make_hot_routes(surroundings, operations, config, lambda: 0.0)
    keys = key_routes(NO_KEYS, NO_AUDIT, config, lambda: 0.0)
    jwts = revocation_routes(None, NO_AUDIT, config)
    scraped = metrics_routes(Metrics(), operations, NO_AUDIT)
    return make_routes(hot, open_requests, operations, config, [*scraped, *keys, *jwts])


@dataclass
class FakeOperations:
    """A supervisor of one model and one slot."""

    state: Readiness = "ok"
    started: bool = True
    asked: list[tuple[str, str]] = field(default_factory=list)

    def readiness(self) -> Readiness:
        return self.state

    def has_started(self) -> bool:
        return self.started

    def models(self) -> list[ModelView]:
        return [
            ModelView("bee-tiny", "synthetic", 1_800_000_000, 4096, is_ready=True),
            ModelView("org/large", "exllamav2", 1_800_000_000, None, is_ready=False),
        ]

    def workers(self) -> list[WorkerView]:
        return [WORKER]

    def queued(self) -> int:
        return 3

    def queued_for(self, model: str) -> int:
        return 3 if model == "bee-tiny" else 0

    def open_requests(self) -> int:
        return 7

    def draining_s(self) -> float:
        return 0.0

    def last_shutdown(self) -> ShutdownView | None:
        return ShutdownView(1.5, 0.25, 2.0, cut_requests=1, killed_workers=2)

    def gpus(self) -> list[GpuView]:
        return [GPU]

    def disks(self) -> list[DiskView]:
        return [DISK]

    def restart_worker(self, slot: str) -> None:
        self._ask("restart", slot)

    def stop_worker(self, slot: str) -> None:
        self._ask("stop", slot)

    def reset_worker(self, slot: str) -> None:
        self._ask("reset", slot)

    def breakers(self) -> list[BreakerView]:
        return [BREAKER]

    def crashes(self) -> list[CrashView]:
        return [CRASH]

    def crash(self, crash_id: str) -> bytes:
        if crash_id != CRASH.id:
            raise RequestError(ErrorCode.NOT_FOUND, "there is no such crash report")
        return b'{"id":"20261123T145500.123Z-bee-tiny-0-4711","lines":[]}'

    def _ask(self, what: str, slot: str) -> None:
        if slot != WORKER.slot:
            raise RequestError(ErrorCode.WORKER_NOT_FOUND, "there is no such slot")
        self.asked.append((what, slot))


class LogLines:
    """A logger that keeps what it was told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def debug(self, event: str, **fields: Any) -> None:
        self.lines.append(("debug", event, fields))

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append(("info", event, fields))

    def warning(self, event: str, **fields: Any) -> None:
        self.lines.append(("warning", event, fields))

    def error(self, event: str, **fields: Any) -> None:
        self.lines.append(("error", event, fields))

    def of(self, event: str) -> list[dict[str, Any]]:
        return [fields for _, name, fields in self.lines if name == event]


class Exchange:
    """One request and what has come back of its answer."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.body = b""
        self.is_complete = False
        self.hang_up = trio.Event()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.json["error"]
        return error

    @property
    def events(self) -> list[Any]:
        """The events of a stream; the last must be DONE and is left out."""
        lines = self.body.split(b"\n\n")
        assert lines[-1] == b""
        assert lines[-2] == b"data: [DONE]"
        assert all(line.startswith(b"data: ") and b"\n" not in line for line in lines[:-1])
        return [json.loads(line[6:]) for line in lines[:-2]]

    async def send(self, message: Message) -> None:
        await trio.lowlevel.checkpoint()
        assert not self.is_complete, "an answer goes on after its end"
        if message["type"] == "http.response.start":
            assert self.status is None, "an answer begins twice"
            self.status = message["status"]
            self.headers = {key.decode(): value.decode() for key, value in message["headers"]}
        else:
            assert self.status is not None, "a body without a start"
            self.body += message.get("body", b"")
            self.is_complete = not message.get("more_body", False)


class Face:
    """The app with fakes around it. Make it inside trio."""

    def __init__(self, **config: Any) -> None:
        self.generator = FakeGenerator()
        self.operations = FakeOperations()
        self.log = LogLines()
        self.app: ASGIApp = make_face(
            self.generator,
            self.operations,
            ServerConfig(**config),
            self.log,
            metrics=Metrics([(WORKER.slot, WORKER.model)]),
            unix_clock=lambda: NOW_UNIX_S,
        ).app

    async def request(
        self,
        method: str,
        path: str,
        body: bytes | list[bytes] = b"",
        *,
        headers: Mapping[str, str] | list[tuple[str, str]] | None = None,
        exchange: Exchange | None = None,
        extensions: dict[str, Any] | None = None,
        query: bytes = b"",
    ) -> Exchange:
        """Make one request, and wait for its answer's end.

        Args:
          body: whole, or in the parts in which it arrives.
          headers: beside a good Host, or as a list exactly those.
        """
        exchange = exchange or Exchange()
        scope = _scope(method, path, headers, extensions)
        scope["query_string"] = query
        parts = [body] if isinstance(body, bytes) else list(body)

        async def receive() -> Message:
            await trio.lowlevel.checkpoint()
            if parts:
                part = parts.pop(0)
                return {"type": "http.request", "body": part, "more_body": bool(parts)}
            await exchange.hang_up.wait()
            return {"type": "http.disconnect"}

        await self.app(scope, receive, exchange.send)
        return exchange

    async def post(self, path: str, body: object, **options: Any) -> Exchange:
        return await self.request("POST", path, json.dumps(body).encode(), **options)

    def start(self, nursery: trio.Nursery, path: str, body: object, **options: Any) -> Exchange:
        """Make a POST in a task of its own."""
        exchange = Exchange()
        nursery.start_soon(functools.partial(self.post, path, body, exchange=exchange, **options))
        return exchange


def _scope(
    method: str,
    path: str,
    headers: Mapping[str, str] | list[tuple[str, str]] | None,
    extensions: dict[str, Any] | None,
) -> Scope:
    if isinstance(headers, list):
        given = headers
    else:
        given = [*{"host": "localhost:7233", **(headers or {})}.items()]
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in given],
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 7233),
        "extensions": extensions or {},
    }


CHAT = {"model": "bee-tiny", "messages": [{"role": "user", "content": "What is 2 + 2?"}]}
COMPLETION = {"model": "bee-tiny", "prompt": "2 + 2 ="}
