"""The servers that are measured: rbee with its lane and without, uvicorn, and mosec.

All of them serve workers that count at a steady pace, without a model.
"""

import argparse
import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from processes import HOST, START_TIMEOUT_S, JsonLines, Running, ServerError, children, process

HERE: Final = Path(__file__).parent
BASELINE: Final = HERE / "baseline" / "server.py"
MOSEC_PEER: Final = HERE / "mosec_peer" / "server.py"
MOSEC_PYTHON: Final = HERE.parent / "build" / "peers" / "bin" / "python"

# mosec gathers the streams of a batch; those of a ramp that takes longer wait for the next batch.
MOSEC_GATHER_S: Final = 30.0
MOSEC_TIMEOUT_MS: Final = 600_000
MOSEC_CAPACITY: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Counting:
    """What the workers of a server do."""

    streams: int  # at once, over all workers
    tokens_per_s: float
    workers: int = 2
    is_streamed: bool = True
    restart_delay_s: float = 1.0
    context_length: int = 4096  # of rbee's workers
    queue_requests_max: int | None = None  # of rbee; None: all streams may wait


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
        with process(command, stderr=subprocess.PIPE) as started:
            lines = JsonLines(started.stderr)
            url = lines.wait("supervisor_started")["url"]
            port = int(url.rpartition(":")[2])
            lines.wait("serving")
            lines.stop_reading()
            workers = wait_workers(port)
            others = (pid for pid in children(started.pid) if pid not in workers)
            yield Running(port, (started.pid, *others), workers)


def rbee_counting(counting: Counting, *, lane: bool) -> AbstractContextManager[Running]:
    # Room for all streams at once, also when they are split unevenly over the workers.
    batch_size = counting.streams * 6 // (5 * counting.workers) + 8
    queue_requests_max = counting.queue_requests_max
    if queue_requests_max is None:
        queue_requests_max = counting.streams
    else:
        batch_size = counting.streams // counting.workers
    return rbee(f"""
[server]
lane = {str(lane).lower()}
dumpable = true
queue_requests_max = {queue_requests_max}
deadline_s = 3600
[restart]
delay_s_min = {counting.restart_delay_s}
failures_max = 1000
[[model]]
ref = "synthetic"
name = "synthetic"
slots = {counting.workers}
batch_size = {batch_size}
[model.synthetic]
tokens_per_s = {counting.tokens_per_s}
context_length = {counting.context_length}
""")


@contextlib.contextmanager
def uvicorn(counting: Counting, *options: str) -> Iterator[Running]:
    """The server of `baseline`, ready with all its workers."""
    command = [sys.executable, str(BASELINE), "--workers", str(counting.workers)]
    command += ["--tokens-per-s", str(counting.tokens_per_s), *options]
    with process(command, stdout=subprocess.PIPE) as started:
        ready = JsonLines(started.stdout).wait("port")
        yield Running(ready["port"], (started.pid,), tuple(ready["workers"]))


@contextlib.contextmanager
def mosec(counting: Counting) -> Iterator[Running]:
    """The server of `mosec_peer`. It cannot say that it is ready, so it is asked."""
    batch = -(-counting.streams // counting.workers)
    environment = {
        "COUNT_TOKENS_PER_S": str(counting.tokens_per_s),
        "COUNT_WORKERS": str(counting.workers),
        "COUNT_BATCH": str(batch),
        "COUNT_STREAM": str(int(counting.is_streamed)),
        "COUNT_WAIT_MS": str(round(1000 * MOSEC_GATHER_S) if counting.is_streamed else 1),
    }
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="mosec-") as directory:
        command = [
            str(MOSEC_PYTHON), str(MOSEC_PEER), "--address", HOST, "--port", str(port),
            "--timeout", str(MOSEC_TIMEOUT_MS), "--capacity", str(MOSEC_CAPACITY),
            "--log-level", "warning", "--path", f"{directory}/mosec",
        ]  # fmt: skip
        with process(command, environment=environment) as started:
            _wait_answer(f"http://{HOST}:{port}/")
            yield _mosec_processes(started.pid, port, counting.workers)


def wait_workers(port: int) -> tuple[int, ...]:
    """Wait until no worker of rbee is still on its way.

    Returns:
      Their pids.
    """
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        with urllib.request.urlopen(f"http://{HOST}:{port}/v1/rbee/workers", timeout=5) as answer:
            workers = json.load(answer)["workers"]
        if all(each["state"] in ("ready", "busy") for each in workers):
            return tuple(each["pid"] for each in workers)
        time.sleep(0.05)
    raise ServerError(f"workers are not ready: {workers}")


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])


def _wait_answer(url: str) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(url, timeout=5).close()
            return
        time.sleep(0.1)
    raise ServerError(f"{url} did not answer in {START_TIMEOUT_S} s")


def _mosec_processes(main: int, port: int, workers: int) -> Running:
    """Its workers are the processes with the worker's name; all others belong to the front."""
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        found = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children(main)}
        spawned = tuple(pid for pid, line in found.items() if b"spawn_main" in line)
        if len(spawned) == workers:
            time.sleep(1.0)  # they connect to the front; nothing tells when they have
            front = (main, *(pid for pid in found if pid not in spawned))
            return Running(port, front, spawned)
        time.sleep(0.1)
    raise ServerError(f"mosec has not started {workers} workers in {START_TIMEOUT_S} s")


Start = Callable[[Counting], AbstractContextManager[Running]]

STARTS: Final[Mapping[str, Start]] = {
    "rbee": lambda counting: rbee_counting(counting, lane=True),
    "rbee-no-lane": lambda counting: rbee_counting(counting, lane=False),
    "uvicorn": uvicorn,
    "uvicorn-per-token": lambda counting: uvicorn(counting, "--message-per-token"),
    "mosec": mosec,
}


def add_servers(parser: argparse.ArgumentParser, known: tuple[str, ...] = tuple(STARTS)) -> None:
    """The option that names servers; by default it is all that can run here."""
    has_mosec = MOSEC_PYTHON.exists()
    left_out = () if has_mosec else ("mosec",)
    able = [name for name in known if name not in (*left_out, "uvicorn-per-token")]
    parser.add_argument("--servers", nargs="+", choices=known, default=able)
    if not has_mosec and "mosec" in known:
        parser.epilog = "mosec is not installed, and left out; `make bench-peers` installs it."
