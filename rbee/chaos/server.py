"""The `rbee serve` that is put to the test: started, read and asked as by its operator."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final, Literal

import httpx2
import trio

from rbee.chaos.clock import clock_environment, set_clock
from rbee.chaos.preparations import AUDIT_SECRET, trusting
from rbee.chaos.setting import Setting
from rbee.errors import RbeeError

START_TIMEOUT_S: Final = 60.0
ASK_TIMEOUT_S: Final = 10.0

# A server whose drill is broken off is hurried after this, and then gets so long to end by itself.
HURRY_AFTER_S: Final = 1.0
END_S: Final = 8.0

# What is kept of the log, but for what it says of each request; a server that says more has a
# fault of its own.
EVENTS_MAX: Final = 100_000
OF_EACH_REQUEST: Final = "request_done"


class DrillError(RbeeError):
    """The drill did not go as it must: the server's fault, or the drill could not be held."""


class Server:
    """A running `rbee serve`.

    Args:
      folder: for its configuration and its log.
      short: for its run and state directories; the path of a socket may not be long.
    """

    def __init__(self, folder: Path, short: Path, setting: Setting) -> None:
        self.run_dir: Final = short / "run-disk" / "run"
        self.state_dir: Final = short / "state-disk" / "state"
        self.url = ""
        self.events: list[dict[str, Any]] = []
        self._may_read = trio.Event()
        self._may_read.set()
        self._folder = folder
        self._setting = setting
        self._changed = trio.Event()
        self._process: trio.Process | None = None
        self._key = ""
        self._client: httpx2.AsyncClient | None = None

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; minus the signal's number where one ended it."""
        return self._running.returncode

    @property
    def setting(self) -> Setting:
        return self._setting

    @property
    def folder(self) -> Path:
        return self._folder

    @property
    def key(self) -> str:
        """Of an admin; "": it asks for none."""
        return self._key

    @property
    def _asking(self) -> httpx2.AsyncClient:
        assert self._client is not None, "nobody knows yet where the server listens"
        return self._client

    @property
    def _running(self) -> trio.Process:
        assert self._process is not None, "the server was not started"
        return self._process

    async def make_key(self) -> None:
        """Make the first key, as an operator does. Before it is started.

        Raises:
          DrillError: it could not be made.
        """
        path = self._folder / "admin.key"
        where = ["--state-dir", str(self.state_dir), "--key-file", str(path)]
        code, told = await _command("init", *where)
        if code != 0:
            raise DrillError(f"rbee init, code {code}: {told}")
        self._key = path.read_text("ascii").strip()

    def know_key(self, key: str) -> None:
        """Show that key, of a server that was in this one's place."""
        self._key = key

    def open_client(self, timeout_s: float, key: str | None = None) -> httpx2.AsyncClient:
        """A client with as many connections as it likes, and the drill's key if there is one.

        Args:
          key: another one; "": none.
        """
        shown = self._key if key is None else key
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
        return httpx2.AsyncClient(
            timeout=timeout_s, limits=limits, trust_env=False,
            headers={"Authorization": f"Bearer {shown}"} if shown else {},
            verify=trusting(self._folder) if self._setting.has_tls else True,
        )  # fmt: skip

    def move_clock(self, offset_s: float) -> None:
        """Have its wall clock go that far from the machine's."""
        set_clock(self._folder, offset_s)

    def _own_environment(self) -> dict[str, str]:
        if not self._setting.has_own_clock:
            return {}
        return clock_environment(self._folder)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start it and read its log to the end. Cancelling ends and reaps it.

        Reports through ``task_status`` as soon as the process is there.
        """
        path = self._folder / "rbee.toml"
        path.write_text(self._setting.as_toml(self._folder, self.run_dir, self.state_dir))
        command = [sys.executable, "-m", "rbee", "serve", "--config", str(path)]
        self._process = await trio.lowlevel.open_process(
            [*command, "--log-format", "json"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **self._own_environment()},
        )
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read_log)
                task_status.started()
                await self._process.wait()
                self._tell_changed()
        finally:
            with trio.CancelScope(shield=True):
                await self._end()
                if self._client is not None:
                    await self._client.aclose()

    async def _end(self) -> None:
        """End it, by SIGTERM if it can: so it takes away what it has made."""
        process = self._running
        if process.returncode is None:
            process.send_signal(signal.SIGCONT)
            for wait_s in (HURRY_AFTER_S, END_S):  # the second one hurries it
                process.terminate()
                with trio.move_on_after(wait_s):
                    await process.wait()
            if process.returncode is None:
                process.kill()
        await process.wait()

    async def wait_listening(self) -> None:
        event = await self.wait_event("supervisor_started")
        self.url = event["url"]
        self._client = self.open_client(ASK_TIMEOUT_S)

    async def wait_event(
        self, name: str, timeout_s: float = START_TIMEOUT_S, number: int = 1
    ) -> dict[str, Any]:
        """The first event of that name, whether it has come already or not.

        Args:
          number: 2: the second, and so on.
        Raises:
          DrillError: it did not come.
        """
        with trio.move_on_after(timeout_s):
            while True:
                found = [each for each in self.events if each["event"] == name]
                if len(found) >= number:
                    return found[number - 1]
                if self.exit_code is not None:
                    raise DrillError(f"the server ended ({self.exit_code}) without {name!r}")
                await self._changed.wait()
        raise DrillError(f"the server did not log {name!r} within {timeout_s:g} s")

    def check_running(self) -> None:
        """Raises: DrillError: it has ended."""
        if self.exit_code is not None:
            raise DrillError(f"the server has ended ({self.exit_code})")

    async def wait_ended(self, timeout_s: float) -> None:
        """Raises: DrillError: it runs on."""
        with trio.move_on_after(timeout_s):
            await self._running.wait()
            return
        raise DrillError(f"the server did not end within {timeout_s:g} s")

    def count(self, name: str) -> int:
        """How many events of that name there were."""
        return sum(1 for event in self.events if event["event"] == name)

    @property
    def errors(self) -> Counter[str]:
        """Events at level error, and lines that are no events, by name."""
        return Counter(event["event"] for event in self.events if event.get("level") == "error")

    def signal(self, number: signal.Signals) -> None:
        self._running.send_signal(number)

    def stall_log(self) -> None:
        """Stand still as the reader of its stderr, of which the pipe takes little."""
        assert isinstance(self._running.stderr, trio.lowlevel.FdStream)
        with contextlib.suppress(OSError):  # it holds more at the moment: it is small enough
            fcntl.fcntl(self._running.stderr.fileno(), fcntl.F_SETPIPE_SZ, 4096)
        self._may_read = trio.Event()

    def go_on_reading(self) -> None:
        self._may_read.set()

    async def close_log(self) -> None:
        """Go away as the reader of its stderr."""
        assert self._running.stderr is not None
        await self._running.stderr.aclose()

    async def get(self, path: str, timeout_s: float = ASK_TIMEOUT_S) -> httpx2.Response:
        """Raises: httpx2.HTTPError."""
        return await self._asking.get(self.url + path, timeout=timeout_s)

    async def delete(self, path: str) -> httpx2.Response:
        """Raises: httpx2.HTTPError."""
        return await self._asking.delete(self.url + path)

    async def post(self, path: str, body: dict[str, Any]) -> httpx2.Response:
        """Raises: httpx2.HTTPError."""
        return await self._asking.post(self.url + path, json=body)

    async def workers(self) -> list[dict[str, Any]]:
        """All slots, as operators see them.

        Raises:
          DrillError: the server has ended, or does not answer within `ASK_TIMEOUT_S`.
        """
        self.check_running()
        try:
            answer = await self.get("/v1/rbee/workers")
            found: list[dict[str, Any]] = answer.raise_for_status().json()["workers"]
        except httpx2.HTTPError as error:
            raise DrillError(f"GET /v1/rbee/workers: {error!r}") from error
        return found

    async def command(self, slot: str, word: Literal["restart", "stop", "reset"]) -> None:
        """What an operator may ask of a slot.

        Raises:
          DrillError: it was refused.
        """
        answer = await self._asking.post(f"{self.url}/v1/rbee/workers/{slot}/{word}")
        if answer.status_code != 202:
            raise DrillError(f"{word} of {slot}: status {answer.status_code}")

    async def verify_audit(self) -> str:
        """Have its audit log verified, as it lies there when the server is gone.

        Returns:
          What is wrong with it; "" when nothing is.
        """
        secret = self._folder / AUDIT_SECRET
        seal = ["--secret-file", str(secret)] if secret.exists() else []
        code, told = await _command("audit", "verify", *seal, str(self.state_dir / "audit"))
        return "" if code == 0 else f"the audit log, code {code}: {told}"

    async def _read_log(self) -> None:
        assert self._running.stderr is not None
        rest = b""
        closed = contextlib.suppress(trio.ClosedResourceError)  # `close_log`
        with (self._folder / "server.log").open("ab") as file, closed:
            async for chunk in self._running.stderr:
                file.write(chunk)
                *lines, rest = (rest + chunk).split(b"\n")
                events = map(_event, lines)
                self.events.extend(each for each in events if each["event"] != OF_EACH_REQUEST)
                if len(self.events) > EVENTS_MAX:
                    raise DrillError(f"the server logged more than {EVENTS_MAX} lines")
                self._tell_changed()
                await self._may_read.wait()
        self._tell_changed()

    def _tell_changed(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


async def _command(*words: str) -> tuple[int, str]:
    """Run `rbee` with these words: its exit code, and what it said."""
    done = await trio.run_process(
        [sys.executable, "-m", "rbee", *words],
        stdin=subprocess.DEVNULL, capture_stdout=True, capture_stderr=True, check=False,
    )  # fmt: skip
    return done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace").strip()


def _event(line: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        event = json.loads(line)
        if isinstance(event, dict) and "event" in event:
            return event
    return {"event": "no event", "level": "error", "line": line.decode("utf-8", "replace")}
