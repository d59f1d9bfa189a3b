"""A small real HTTP server that answers as rbee does, for tests of the command line."""

import json
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TIMEOUT_S = 10.0


def worker(slot: str, **changes: Any) -> dict[str, Any]:
    """One entry of ``GET /v1/rbee/workers``."""
    view = {
        "slot": slot, "model": "bee-tiny", "engine": "llamacpp", "state": "ready", "pid": 4242,
        "restarts": 1, "failures": 0, "last_failure": "", "retry_in_s": None, "uptime_s": 125.0,
        "phase": "decode", "progress": None, "beats": 9, "beat_age_s": 0.52, "steps": 70,
        "tokens": 6543, "requests": 2, "batch_size": 8, "rss_bytes": 436_207_616,
        "vram_bytes": None, "device": "cpu", "detail": {},
    }  # fmt: skip
    return {**view, **changes}


class Answers:
    """What the server says; tests set it, and read what it was asked."""

    def __init__(self) -> None:
        self.readiness = "ok"
        self.workers = [worker("bee-tiny-0"), worker("bee-tiny-1", pid=4243)]
        self.box: dict[str, Any] = {}  # what is said beside the workers
        self.raw = ("nothing", "nothing")  # in the text of its JSON, and what is said instead
        self.models = ["bee-tiny", "other"]
        self.crashes: list[dict[str, Any]] = []
        self.pieces = ["Hello", ", ", "bee."]
        self.refusal: tuple[int, dict[str, Any]] | None = None  # of a chat, instead of an answer
        self.failure: dict[str, Any] | None = None  # after the pieces, instead of an end
        self.is_cut = False  # after the pieces, nothing at all
        self.is_endless = False  # after the pieces, wait until the client goes
        self.chats: list[dict[str, Any]] = []
        self.posts: list[str] = []
        self.client_left = threading.Event()


@contextmanager
def serving(answers: Answers, port: int = 0) -> Iterator[str]:
    """Serve until the block ends.

    Yields:
      The server's URL.
    """
    server = ThreadingHTTPServer(("127.0.0.1", port), _handler(answers))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(TIMEOUT_S)


def _handler(answers: Answers) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        says = answers

    return Handler


class _Handler(BaseHTTPRequestHandler):
    says: Answers

    def do_GET(self) -> None:
        match self.path:
            case "/v1/models":
                models = [{"id": name, "object": "model"} for name in self.says.models]
                self._json(200, {"object": "list", "data": models})
            case "/v1/rbee/workers":
                self._json(200, {"workers": self.says.workers, "queued": 3, **self.says.box})
            case "/v1/rbee/crashes":
                short = ("id", "time", "slot", "cause", "how")
                listed = [{name: each[name] for name in short} for each in self.says.crashes]
                self._json(200, {"crashes": listed})
            case path if path.startswith("/v1/rbee/crashes/"):
                [crash] = [each for each in self.says.crashes if path.endswith(each["id"])]
                self._json(200, crash)
            case "/health/ready":
                is_ready = self.says.readiness == "ok"
                self._json(200 if is_ready else 503, {"status": self.says.readiness})
            case _:
                self._json(404, {"error": {"code": "not_found", "message": "no such route"}})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.says.posts.append(self.path)
        if self.path != "/v1/chat/completions":
            self._json(202, {"slot": self.path.split("/")[4]})
            return
        self.says.chats.append(json.loads(body))
        if self.says.refusal:
            self._json(*self.says.refusal)
            return
        self._stream()

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("X-Correlation-ID", "c0ffee")
        self.end_headers()
        self._event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
        for piece in self.says.pieces:
            self._event({"choices": [{"index": 0, "delta": {"content": piece}}]})
        if self.says.is_endless:
            # Readable without a new request on the way: the client closed the connection.
            if select.select([self.connection], [], [], TIMEOUT_S)[0]:
                self.says.client_left.set()
        elif self.says.failure:
            self._event({"error": self.says.failure})
            self.wfile.write(b"data: [DONE]\n\n")
        elif not self.says.is_cut:
            self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            self._event({"choices": [], "usage": {"total_tokens": 5}})
            self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, event: dict[str, Any]) -> None:
        # As the supervisor writes it: characters as they are, not as JSON escapes.
        self.wfile.write(f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode())
        self.wfile.flush()

    def _json(self, status: int, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).replace(*self.says.raw).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (its base's name)
        """Nothing: what was asked is in `Answers`."""
