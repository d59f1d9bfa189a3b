"""Starts what is measured, and ends it: by pid, and only its own."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 30.0
HOST: Final = "127.0.0.1"


class ServerError(Exception):
    """A server did not start, or did not stop as it should."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that is ready."""

    port: int
    front_pids: tuple[int, ...]  # the main process first, and all others but the workers
    worker_pids: tuple[int, ...]


@contextlib.contextmanager
def process(
    command: list[str], *, environment: Mapping[str, str] | None = None, **pipes: int
) -> Iterator["subprocess.Popen[bytes]"]:
    """A process of ours; SIGTERM ends it, and SIGKILL what does not end by it."""
    started = subprocess.Popen(  # type: ignore[call-overload]
        command, env={**os.environ, **(environment or {})}, start_new_session=True, **pipes
    )
    try:
        yield started
    finally:
        started.send_signal(signal.SIGTERM)
        try:
            code = started.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()
            raise ServerError(f"{command[1:3]} did not end in {STOP_TIMEOUT_S} s") from None
    if code != 0:
        raise ServerError(f"{command[1:3]} ended with exit code {code}")


class JsonLines:
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
        with pipe:
            for raw in pipe:
                if self._is_starting:
                    self._take(raw)
        self._lines.put(None)

    def _take(self, raw: bytes) -> None:
        self._seen.append(raw.decode("utf-8", "replace"))
        with contextlib.suppress(ValueError):
            line = json.loads(raw)
            if isinstance(line, dict):
                self._lines.put(line)


def children(pid: int) -> tuple[int, ...]:
    """The processes that a process has started from its main thread. Source: proc(5)."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii")
    return tuple(int(each) for each in text.split())
