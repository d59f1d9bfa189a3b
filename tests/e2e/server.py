"""Starts the real `rbee serve` for a test, reads its log, and sees that nothing stays behind."""

import json
import os
import queue
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil

SYNTHETIC = """
[[model]]
ref = "synthetic"
name = "synthetic"
{model}
[model.synthetic]
tokens_per_s = 200
{synthetic}
"""

START_TIMEOUT_S = 60

# A client that is given no context reads all certificates of the machine: 20 ms for each request.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def synthetic_config(*, head: str = "", model: str = "", synthetic: str = "") -> str:
    """A configuration with one synthetic model, and what the test adds to it."""
    return head + SYNTHETIC.format(model=model, synthetic=synthetic)


class Server:
    """A running `rbee serve`, as a person at its terminal would see it.

    Args:
      through: a command that becomes the server by ``exec``, such as a shell that sets limits.
      python: the interpreter that runs it, and its workers.
    """

    def __init__(
        self,
        directory: Path,
        config: str,
        *arguments: str,
        through: Sequence[str] = (),
        bind: str = "127.0.0.1:0",
        python: str = sys.executable,
    ) -> None:
        self.run_dir = directory / "run"
        path = directory / "rbee.toml"
        path.write_text(config)
        command = [python, "-m", "rbee", "serve", "--config", str(path)]
        options = ["--bind", bind, "--run-dir", str(self.run_dir)]
        self.process = subprocess.Popen(
            [*through, *command, *options, "--log-format", "json", *arguments],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=os.environ,
        )
        self.events: list[dict[str, Any]] = []
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = ""

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_event(self, name: str, timeout_s: float = START_TIMEOUT_S, **fields: Any) -> Any:
        """The next event of that name with those fields, from the first on that was not read."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            left_s = deadline_s - time.monotonic()
            try:
                event = self._lines.get(timeout=max(0.01, left_s))
            except queue.Empty:
                raise AssertionError(f"no {name} {fields} in {timeout_s} s: {self.log}") from None
            assert event is not None, f"rbee ended before {name}: {self.log}"
            if event["event"] == name and all(event.get(k) == v for k, v in fields.items()):
                return event

    @property
    def log(self) -> str:
        return "\n".join(json.dumps(event) for event in self.events[-40:])

    @property
    def log_text(self) -> str:
        """All of it, as JSON again."""
        return "\n".join(json.dumps(event, ensure_ascii=False) for event in self.events)

    def started(self) -> "Server":
        """Wait until it listens."""
        self.url = self.wait_event("supervisor_started")["url"]
        return self

    def ready(self) -> "Server":
        """Wait until it serves."""
        self.started()
        self.wait_event("serving")
        return self

    def get(self, path: str) -> httpx2.Response:
        return httpx2.get(self.url + path, timeout=10, verify=NO_TLS)

    def post(self, path: str, body: Any = None, timeout_s: float = 60) -> httpx2.Response:
        return httpx2.post(self.url + path, json=body, timeout=timeout_s, verify=NO_TLS)

    def chat(self, content: str, model: str = "synthetic", **more: Any) -> httpx2.Response:
        body = {"model": model, "messages": [{"role": "user", "content": content}], **more}
        return self.post("/v1/chat/completions", body)

    def workers(self) -> list[dict[str, Any]]:
        workers: list[dict[str, Any]] = self.get("/v1/rbee/workers").json()["workers"]
        return workers

    def worker_pids(self) -> list[int]:
        return [worker["pid"] for worker in self.workers() if worker["pid"] is not None]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self, timeout_s: float = 30) -> int:
        """SIGTERM, and wait for the end.

        Returns:
          The exit code.
        """
        self.signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def close(self) -> None:
        """End it, if the test did not; and hold it to leaving nothing behind."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)
                raise
        self._reader.join(5)
        assert self.process.stderr is not None
        self.process.stderr.close()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                event = json.loads(line)
            except ValueError:
                event = {"event": "not_json", "line": line.decode("utf-8", "replace")}
            self.events.append(event)
            self._lines.put(event)
        self._lines.put(None)


@contextmanager
def serving(directory: Path, config: str, *arguments: str) -> Iterator[Server]:
    """A server that is ready."""
    server = Server(directory, config, *arguments)
    try:
        yield server.ready()
    finally:
        server.close()


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> float:
    """Wait for something outside of this process.

    Returns:
      How long it took, in seconds.
    """
    begun_s = time.monotonic()
    while not condition():
        assert time.monotonic() - begun_s < timeout_s, f"not within {timeout_s} s: {what}"
        time.sleep(0.005)
    return time.monotonic() - begun_s


def is_running(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
