"""Starts what is measured, knows its processes, and ends them: by pid, and only its own."""

import contextlib
import json
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 30.0
HOST: Final = "127.0.0.1"
BASELINE: Final = Path(__file__).parent / "baseline" / "server.py"


class ServerError(Exception):
    """A server did not start, or did not stop as it should."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that is ready."""

    pid: int
    worker_pids: tuple[int, ...]
    port: int


@contextlib.contextmanager
def rbee(config: str) -> Iterator[Running]:
    """The real `rbee serve` in a directory of its own, ready with all its workers."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        path = Path(directory) / "rbee.toml"
        path.write_text(config, "utf-8")
        command = [
            sys.executable, "-m", "rbee", "serve", "--config", str(path), "--bind", f"{HOST}:0",
            "--run-dir", f"{directory}/run", "--log-format", "json",
        ]  # fmt: skip
        with _process(command, stderr=subprocess.PIPE) as process:
            lines = _Lines(process.stderr)
            url = lines.wait("supervisor_started")["url"]
            port = int(url.rpartition(":")[2])
            lines.wait("serving")
            lines.stop_reading()
            yield Running(process.pid, _workers_ready(url), port)


@contextlib.contextmanager
def baseline(workers: int, tokens_per_s: float, *, uvloop: bool = False) -> Iterator[Running]:
    """The uvicorn server of `baseline`, ready with all its workers."""
    command = [sys.executable, str(BASELINE), "--workers", str(workers)]
    command += ["--tokens-per-s", str(tokens_per_s), *(["--uvloop"] if uvloop else [])]
    with _process(command, stdout=subprocess.PIPE) as process:
        ready = _Lines(process.stdout).wait("port")
        print(f"baseline: {ready['stack']}", file=sys.stderr, flush=True)
        yield Running(process.pid, tuple(ready["workers"]), ready["port"])


@contextlib.contextmanager
def _process(command: list[str], **pipes: int) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(command, **pipes)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise ServerError(f"{command[1:3]} did not end in {STOP_TIMEOUT_S} s") from None
    if code != 0:
        raise ServerError(f"{command[1:3]} ended with exit code {code}")


class _Lines:
    """The JSON lines of a process, read by a thread so that its pipe never fills."""

    def __init__(self, pipe: IO[bytes] | None) -> None:
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._seen: list[str] = []
        self._is_starting = True
        assert pipe is not None, "the process was started with this pipe"
        threading.Thread(target=self._read, args=(pipe,), daemon=True).start()

    def wait(self, name: str) -> dict[str, Any]:
        """The next line whose ``event`` is ``name``, or that has a key of that name."""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                line = self._lines.get(timeout=max(0.01, deadline_s - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                raise ServerError(f"no {name} came; the last lines: {self._seen[-20:]}")
            if line.get("event") == name or name in line:
                return line
            if line.get("event") == "not_serving":
                raise ServerError(f"it does not serve; the last lines: {self._seen[-20:]}")

    def stop_reading(self) -> None:
        """From now on lines are dropped: reading them would take from the load client's core."""
        self._is_starting = False

    def _read(self, pipe: IO[bytes]) -> None:
        for raw in pipe:
            if not self._is_starting:
                continue
            self._seen.append(raw.decode("utf-8", "replace"))
            with contextlib.suppress(ValueError):
                line = json.loads(raw)
                if isinstance(line, dict):
                    self._lines.put(line)
        self._lines.put(None)


def _workers_ready(url: str) -> tuple[int, ...]:
    """Wait until no worker is still on its way.

    Returns:
      Their pids.
    """
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        with urllib.request.urlopen(f"{url}/v1/rbee/workers", timeout=5) as answer:
            workers = json.load(answer)["workers"]
        if all(each["state"] in ("ready", "busy") for each in workers):
            return tuple(each["pid"] for each in workers)
        time.sleep(0.05)
    raise ServerError(f"workers are not ready: {workers}")
