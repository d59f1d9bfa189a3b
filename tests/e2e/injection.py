"""Has one system call of a real `rbee serve` fail, and holds the server to what may come of it.

The failing is done by `strace`, so the server is the one that ships. A count is of each thread
by itself: the Nth of the supervisor's main thread and of each of its other threads; in a start
also of each process that it starts, so that there a worker may fail as often as it is tried.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import httpx2
import psutil

from rbee.audit.place import place_in
from rbee.audit.reading import verify
from tests.e2e.server import Server, is_running, synthetic_config, wait_until

STRACE = shutil.which("strace")

# Nobody else listens there: between the look for a free port and its use lies a whole start.
HOST = "127.0.0.2"

# From the start on, all that a server starts is traced: by a process that is not its parent.
STRACE_ALL = (STRACE or "", "-D", "-f", "--seccomp-bpf")

Phase = Literal["start", "crash", "stop", "command", "store", "audit", "reload"]

# How long the server may take, on a busy machine and traced, to be ready or to give up.
SETTLE_S = 30.0
END_S = 25.0

# What `rbee serve` may end with where the system refuses something; docs/exit-codes.md.
REFUSED = frozenset({69, 71, 73, 74, 77, 78})

# Of what Python reads by itself: its own files, and those that it imports.
_PYTHONS_OWN = re.compile(
    r"\.pyc?\b|\.so\b|\.so\.|/site-packages|/lib/python|/pyvenv|ld\.so|/rbee>"
)


# How we end, and how libzmq does where it is refused what it needs: it aborts the process.
_OURS = re.compile(r"rbee: .+")
_ZEROMQS_OWN = re.compile(r".+ \(src/\w+\.[ch]pp:[0-9]+\)")


@dataclass(frozen=True)
class Point:
    """The ``nth`` of that call fails with ``errno``, from the beginning of ``phase`` on.

    Args:
      deed: what is done in that phase, where there is a choice.
    """

    phase: Phase
    syscall: str
    errno: str
    nth: int
    deed: str = ""

    def __str__(self) -> str:
        phase = f"{self.phase}, {self.deed}" if self.deed else self.phase
        return f"{phase}: {self.syscall} {self.nth} fails with {self.errno}"

    def options(self, trace: Path) -> list[str]:
        inject = f"inject={self.syscall}:error={self.errno}:when={self.nth}"
        return ["-o", str(trace), "-e", f"trace={self.syscall}", "-e", inject]


@dataclass
class Outcome:
    """What came of it. `problems` is empty where all is as it must be."""

    point: Point
    how: str = ""
    was_hit: bool = False
    was_abort: bool = False
    problems: list[str] = field(default_factory=list)
    log: str = ""

    def __str__(self) -> str:
        told = "".join(f"\n    {each}" for each in self.problems)
        return f"{self.point}: {self.how}{told}"


def config(state_dir: Path) -> str:
    """Little patience, so that a slot that cannot be filled is given up soon."""
    return synthetic_config(
        head=f'[server]\nstate_dir = "{state_dir}"\ndrain_s = 2\n'
        "[restart]\ndelay_s_min = 0.05\ndelay_s_max = 0.1\nfailures_max = 3\n"
        "[worker]\nterm_after_s = 2\nkill_after_s = 4\n[audit]\nsync_s = 0.2\n"
    )


def own_calls(directory: Path, syscalls: list[str]) -> dict[str, list[int]]:
    """Which calls of a start are rbee's, and not of Python's imports: by their place among all
    calls of that kind by the main thread.
    """
    assert STRACE is not None
    directory.mkdir()
    trace = directory / "trace"
    through = [*STRACE_ALL, "-y", "-o", str(trace), "-e", f"trace={','.join(syscalls)}"]
    server = Server(directory, config(directory / "state"), through=through)
    try:
        server.ready()
        assert server.stop() == 0
    finally:
        server.close()
    main = str(server.pid)
    found: dict[str, list[int]] = {name: [] for name in syscalls}
    counts = dict.fromkeys(syscalls, 0)
    has_begun = False
    for line in trace.read_text("utf-8", "replace").splitlines():
        pid, _, call = line.partition(" ")
        name = call.strip().partition("(")[0]
        if pid == main and name in counts:
            counts[name] += 1
            has_begun = has_begun or "/rbee/__main__" in call
            if has_begun and not _PYTHONS_OWN.search(call):
                found[name].append(counts[name])
    return found


class Trial:
    """One server with one failure."""

    def __init__(self, directory: Path, point: Point) -> None:
        directory.mkdir()
        self._directory = directory
        self._trace = directory / "trace"
        self._outcome = Outcome(point)
        self._seen: set[int] = set()
        self._tracer: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            self._port = probe.getsockname()[1]

    def run(self) -> Outcome:
        assert STRACE is not None
        point, state_dir = self._outcome.point, self._directory / "state"
        through = [*STRACE_ALL, *point.options(self._trace)] if point.phase == "start" else ()
        bind = f"{HOST}:{self._port}"  # its log may be what fails
        server = Server(self._directory, config(state_dir), through=through, bind=bind)
        server.url = f"http://{bind}"
        try:
            self._observe(server)
        finally:
            for pid in (*self._seen, server.pid):
                if is_running(pid) and (pid != server.pid or server.process.poll() is None):
                    self._problem(f"pid {pid} is left: {' '.join(psutil.Process(pid).cmdline())}")
                    os.kill(pid, signal.SIGKILL)
            server.process.wait(5)
            server.close()
            self._end_tracer()
        self._check_words(server)
        self._check_disk(server.run_dir, state_dir)
        if self._trace.exists():
            self._outcome.was_hit = "(INJECTED)" in self._trace.read_text("utf-8", "replace")
        self._outcome.log = server.log if self._outcome.problems else ""
        return self._outcome

    def _problem(self, what: str) -> None:
        self._outcome.problems.append(what)

    def _observe(self, server: Server) -> None:
        point = self._outcome.point
        state = self._settled(server)
        if point.phase != "start":
            if state != "serves":
                self._problem(f"without a failure it {state}")
                return
            self._attach(server)
            if point.phase == "crash":
                os.kill(server.worker_pids()[0], signal.SIGKILL)
                server.wait_event("worker_failed", 10)
                state = self._settled(server)
        self._outcome.how = state
        if state == "hangs":
            self._problem(f"neither ready nor given up after {SETTLE_S:g} s")
        elif state == "serves":
            self._check_chat(server, 200)
        elif state == "stays, without a worker":
            self._check_chat(server, 503)
        self._check_end(server, state)

    def _settled(self, server: Server) -> str:
        until_s = time.monotonic() + SETTLE_S
        while time.monotonic() < until_s:
            self._note_children(server)
            if server.process.poll() is not None:
                return "ends"
            try:
                if httpx2.get(server.url + "/health/ready", timeout=2).status_code == 200:
                    return "serves"
                if all(each["state"] == "failed" for each in server.workers()):
                    return "stays, without a worker"
            except httpx2.HTTPError:
                pass
            time.sleep(0.02)
        return "hangs"

    def _note_children(self, server: Server) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            self._seen.update(each.pid for each in psutil.Process(server.pid).children(True))

    def _check_chat(self, server: Server, status: int) -> None:
        try:
            answer = server.chat("[tokens=3]")
        except httpx2.HTTPError as error:
            self._problem(f"a chat met {type(error).__name__}: {error}")
            return
        if answer.status_code != status:
            self._problem(f"a chat is answered by {answer.status_code}: {answer.text}")

    def _check_end(self, server: Server, state: str) -> None:
        self._note_children(server)
        if state != "ends":
            server.signal(signal.SIGTERM)
        try:
            code = server.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._problem(f"not ended {END_S:g} s after SIGTERM")
            return
        self._outcome.how += f", {code}"
        if state == "ends" and code == -signal.SIGABRT:
            self._outcome.was_abort = True
        elif code not in (REFUSED if state == "ends" else {0}):
            self._problem(f"exit code {code}")
        with contextlib.suppress(AssertionError):  # told for each
            wait_until(lambda: not any(map(is_running, self._seen)), 3, "the end of all it started")

    def _check_words(self, server: Server) -> None:
        """One clear line where it refuses, and no traceback of its own anywhere."""
        spoken: list[str] = []
        for event in server.events:
            if event["event"] == "not_json":
                spoken.append(event["line"].strip())
            elif "exception" in event:
                self._problem(f"{event['event']}: {event['exception']}")
        if any("Traceback" in line for line in spoken):
            self._problem("a traceback:\n" + "\n".join(spoken[-12:]))
        elif self._outcome.how.startswith("ends"):
            pattern = _ZEROMQS_OWN if self._outcome.was_abort else _OURS
            told = [line for line in spoken if pattern.fullmatch(line)]
            if len(told) != 1:
                self._problem(f"{len(told)} lines say why: {spoken}")
            else:
                self._outcome.how += f" {told[0]!r}"

    def _check_disk(self, run_dir: Path, state_dir: Path) -> None:
        """The audit log is good; what lies in the run directory is cleared by the next start."""
        if any(place_in(state_dir).folder.glob("*.jsonl")):
            flaw = verify(place_in(state_dir)).flaw
            if flaw is not None and flaw.kind not in ("no_anchor", "torn", "damaged"):
                self._problem(f"the audit log: {flaw}")
        if not run_dir.exists():
            return
        self._outcome.how += f", left {sorted(each.name for each in run_dir.iterdir())}"
        after = Server(self._directory, config(state_dir))
        try:
            after.ready()
            if after.stop() != 0 or run_dir.exists():
                self._problem("the next start did not clear the run directory")
        finally:
            after.close()

    def _attach(self, server: Server) -> None:
        """Trace the threads that it has now, and not the workers that are to come."""
        assert STRACE is not None
        threads = ",".join(each.name for each in Path(f"/proc/{server.pid}/task").iterdir())
        options = self._outcome.point.options(self._trace)
        self._tracer = subprocess.Popen([STRACE, *options, "-p", threads], stderr=subprocess.PIPE)
        assert self._tracer.stderr is not None
        for _ in threads.split(","):
            line = self._tracer.stderr.readline()
            assert b"attached" in line, line

    def _end_tracer(self) -> None:
        if self._tracer is not None:
            self._tracer.communicate(timeout=10)


def attempt(directory: Path, point: Point) -> Outcome:
    """Try one point; an answer that the harness itself cannot give is a problem, too."""
    return Trial(directory, point).run()
