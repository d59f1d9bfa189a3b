"""Starts a worker process with its link, and owns both until they are gone.

The stop ladder: ask over the link, SIGTERM to the group after ``term_after_s``, SIGKILL to all
that descends from the worker after ``kill_after_s``. One ladder per worker, so all workers go
down it at the same time.
"""

import contextlib
import json
import os
import secrets
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import trio

from rbee.config import WorkerConfig
from rbee.errors import LinkFullError
from rbee.logs import Log
from rbee.supervisor.child import Child
from rbee.supervisor.custody import Custody, loose_custody
from rbee.supervisor.memory_watch import watch_memory
from rbee.supervisor.output import capture
from rbee.supervisor.process import Process
from rbee.supervisor.worker_user import WorkerUser
from rbee.threads import thread_refusals
from rbee.transport.link import Link, LinkFactory
from rbee.wire import STACKS_SIGNAL, Stop, encode

SECRET_BYTES: Final = 32

# What a worker may see of our environment. Nothing secret is handed down in it.
ENVIRONMENT_KEPT: Final = (
    "PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH",
    "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "TORCH_CUDA_ARCH_LIST",
    "TORCH_EXTENSIONS_DIR", "MAX_JOBS",
    "COVERAGE_PROCESS_CONFIG",  # set by coverage.py, when tests measure workers too
)  # fmt: skip

# After SIGKILL: a process that hangs in the kernel for longer does not hold its slot; and not the
# supervisor, whose shutdown has waited for it before.
UNKILLABLE_AFTER_S: Final = 5.0
UNKILLABLE_AT_SHUTDOWN_AFTER_S: Final = 1.0

# What is left of a worker's descendants when it has ended is killed, and mostly gone at once.
STRAYS_GONE_S: Final = 2.0
STRAYS_LOOK_EVERY_S: Final = 0.002

# How long the output of a worker that has ended may still come.
OUTPUT_TAIL_S: Final = 0.2

# How long its link stays open for whoever still receives.
LINK_TAIL_S: Final = 1.0

Spawn = Callable[[list[str], dict[str, str], list[int], int], Process]

NOT_STOPPED: Final = "did not stop when asked"

Killed = Callable[[str, int, str, str], None]
"""Hears of each signal that ends a worker: worker id, pid, name of the signal, reason."""


def _unheard(_worker: str, _pid: int, _signal: str, _reason: str) -> None:
    """Where nobody wants to know."""


class EngineChild:
    """A worker process and its link."""

    def __init__(  # noqa: PLR0913, PLR0917  # what `Launcher` has put together
        self,
        worker_id: str,
        process: Process,
        custody: Custody,
        link: Link,
        secret: bytes,
        log: Log,
        killed: Killed,
    ) -> None:
        self._killed = killed
        self.pid: Final = process.pid
        self.secret: Final = secret
        self.worker_id: Final = worker_id
        self.custody: Final = custody
        self._process = process
        self._link = link
        self._log = log
        self._ended = trio.Event()
        self._status: int | None = None  # None: running, or not even SIGKILL ended it
        self._cause = ""
        self.was_killed: Final = trio.Event()
        self._patience: Final = trio.CancelScope()  # with its end; without limit until SIGKILL
        self._is_given_up = False  # not even SIGKILL ended it

    def send(self, frames: list[bytes]) -> None:
        self._link.send(frames)

    async def receive(self) -> list[bytes]:
        return await self._link.receive()

    def receive_nowait(self) -> list[bytes] | None:
        return self._link.receive_nowait()

    def ask_stacks(self) -> None:
        self._process.signal_leader(STACKS_SIGNAL)

    def terminate(self, reason: str) -> None:
        """SIGTERM to its group. Says why in the log."""
        self._tell("SIGTERM", reason)
        self._process.signal_group(signal.SIGTERM)

    def kill(self, reason: str) -> None:
        self._tell("SIGKILL", reason)
        if not self.was_killed.is_set():
            self.was_killed.set()
            self._patience.deadline = trio.current_time() + UNKILLABLE_AFTER_S
        self._process.signal_group(signal.SIGKILL)
        self.custody.kill()

    def kill_for_memory(self, cause: str) -> None:
        """End it, because there is no memory for it: from now on that is its `cause`."""
        if not self._cause:
            self._cause = cause
            self.kill(cause)

    def _tell(self, number: str, reason: str) -> None:
        self._log.warning(
            "worker_killed", worker=self.worker_id, pid=self.pid, signal=number, reason=reason
        )
        self._killed(self.worker_id, self.pid, number, reason)

    @property
    def cause(self) -> str:
        return self._cause

    async def wait_exit(self) -> tuple[int | None, int | None]:
        await self._ended.wait()
        status = self._status
        return (status, None) if status is None or status >= 0 else (None, -status)


@dataclass(frozen=True, slots=True)
class Launcher:
    """The real `Launch`."""

    links: LinkFactory
    limits: WorkerConfig
    hurry: trio.Event  # set: no more asking, SIGKILL at once
    log: Log
    spawn: Spawn = Process
    custody: Callable[[str], Custody] = loose_custody
    killed: Killed = _unheard
    user: WorkerUser | None = None  # whom workers become; None: they stay what we are

    async def __call__(self, worker_id: str, *, task_status: trio.TaskStatus[Child]) -> None:
        """Start the worker and own it. Cancelling runs the ladder.

        Raises:
          OSError: it could not be started.
        """
        custody = self.custody(worker_id)
        try:
            with contextlib.ExitStack() as stack:
                with _Pipes() as pipes:
                    child = await self._start(worker_id, custody, stack, pipes)
                    await self._own(child, pipes, task_status)
                # What it said over the link is still taken; whoever has it cancels us.
                await trio.sleep(LINK_TAIL_S)
        finally:
            if left := custody.release():  # the next start sweeps it
                self.log.error("cgroups_left", worker=worker_id, folders=left)

    async def _start(
        self, worker_id: str, custody: Custody, stack: contextlib.ExitStack, pipes: "_Pipes"
    ) -> EngineChild:
        secret = secrets.token_bytes(SECRET_BYTES)
        kept = {key: os.environ[key] for key in ENVIRONMENT_KEPT if key in os.environ}
        process = self.spawn(
            # -I: nothing from the environment or the current folder gets into its imports.
            [sys.executable, "-I", "-m", "rbee.engine", str(pipes.boot_read), str(pipes.life_read)],
            {**kept, **custody.environment},
            [pipes.boot_read, pipes.life_read],
            pipes.output_write,
        )
        pipes.close_childs_ends()
        self.log.info("worker_spawned", worker=worker_id, pid=process.pid)
        custody.born(process.identity)
        try:
            # The kernel may take 10 ms to move it, in which streams would stand still. A limiter of
            # its own: whoever's threads hang, workers are started.
            with thread_refusals():
                await trio.to_thread.run_sync(
                    custody.admit, process.identity, limiter=trio.CapacityLimiter(1)
                )
            link, path = self._link(process.pid, stack)
        except BaseException:  # where it cannot be held, found again or heard it must not run
            process.reap()
            raise
        boot = {
            "worker_id": worker_id,
            "link_path": str(path),
            "secret_hex": secret.hex(),
            "user": asdict(self.user) if self.user is not None else None,
        }
        with contextlib.suppress(BrokenPipeError):  # ended already: its exit code will say why
            os.write(pipes.boot_write, json.dumps(boot).encode())  # far below what a pipe holds
        pipes.open_gate()
        return EngineChild(worker_id, process, custody, link, secret, self.log, self.killed)

    def _link(self, pid: int, stack: contextlib.ExitStack) -> tuple[Link, Path]:
        """A link for that process alone, until the end of the stack."""
        link, path = self.links.open(f"w-{secrets.token_hex(6)}", pid)
        stack.callback(self._unlink, path)
        stack.callback(link.close)
        return link, path

    async def _own(
        self, child: EngineChild, pipes: "_Pipes", task_status: trio.TaskStatus[Child]
    ) -> None:
        # Shielded: a worker that is being stopped must not meet a closed pipe.
        reading = trio.CancelScope(shield=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                capture, pipes.give_output(), child.worker_id, child.pid, self.log, reading
            )
            watching = trio.CancelScope()
            nursery.start_soon(watch_memory, child, self.log, watching)
            try:
                task_status.started(child)
                await self._wait_or_stop(child)
            finally:
                watching.cancel(reason="the worker ended")
                with trio.CancelScope(shield=True):
                    await self._reap(child)
                child._ended.set()
                # Its end of the pipe is closed, unless a process that cannot be killed holds it.
                reading.deadline = trio.current_time() + OUTPUT_TAIL_S

    async def _reap(self, child: EngineChild) -> None:
        """Kill what is left of the worker, take its exit status, and see that nobody stays."""
        cause = child.custody.memory_problem()
        strays = [pid for pid in child.custody.living() if pid != child.pid]
        child.custody.kill()
        child._status = child._process.reap(waits=not child._is_given_up)
        if cause and not child._cause and child._status == -signal.SIGKILL:
            child._cause = cause
        self.log.info(
            "worker_reaped", worker=child.worker_id, pid=child.pid, status=child._status,
            cause=child._cause, strays=strays,
        )  # fmt: skip
        if strays or child._status is None or child.custody.is_unsure:
            await self._see_gone(child)

    async def _see_gone(self, child: EngineChild) -> None:
        until_s = trio.current_time() + (0 if child._is_given_up else STRAYS_GONE_S)
        while (
            (there := child.custody.living()) or child.custody.is_unsure
        ) and trio.current_time() < until_s:
            child.custody.kill()  # where that is no single act, a fork may have slipped through
            await trio.sleep(STRAYS_LOOK_EVERY_S)
        if there:
            child.custody.survived(there)
            self.log.error(
                "processes_unkillable", worker=child.worker_id, pids=there,
                remedy="they hang in the kernel, mostly in a driver, and keep their memory",
            )  # fmt: skip

    def _unlink(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:  # the next start sweeps it
            self.log.warning("socket_left", path=str(path), problem=error.strerror)

    async def _wait_or_stop(self, child: EngineChild) -> None:
        try:
            with child._patience:
                await child._process.wait_ended()
                return
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await self._go_down_ladder(child)
            raise
        self._give_up(child)

    async def _go_down_ladder(self, child: EngineChild) -> None:
        if not child.was_killed.is_set():
            if await self._stops_when_asked(child):
                return
            child.kill(NOT_STOPPED)
        with trio.move_on_after(UNKILLABLE_AT_SHUTDOWN_AFTER_S):
            await child._process.wait_ended()
            return
        self._give_up(child)

    async def _stops_when_asked(self, child: EngineChild) -> bool:
        begun_s = trio.current_time()
        try:
            child.send(encode(Stop()))
        except LinkFullError:
            pass  # not connected yet, or deaf: nothing to wait for, the signals will do
        else:
            if await self._ended_by(child, begun_s + self.limits.term_after_s):
                return True
        if self.hurry.is_set():
            return False
        child.terminate(NOT_STOPPED)
        return await self._ended_by(child, begun_s + self.limits.kill_after_s)

    def _give_up(self, child: EngineChild) -> None:
        """Its memory is not to be had, but its slot and its requests are."""
        child._is_given_up = True
        self.log.error(
            "worker_unkillable", worker=child.worker_id, pid=child.pid,
            remedy="it hangs in the kernel, mostly in a driver: look at its wchan; reboot",
        )  # fmt: skip

    async def _ended_by(self, child: EngineChild, until_s: float) -> bool:
        """Wait for the end. False: ``until_s`` passed, or somebody is in a hurry."""
        has_ended = False
        with trio.move_on_at(until_s):
            async with trio.open_nursery() as nursery:
                if not self.hurry.is_set():
                    nursery.start_soon(_cancel_when, self.hurry, nursery.cancel_scope)
                    await child._process.wait_ended()
                    has_ended = True
                nursery.cancel_scope.cancel(reason="the worker ended")
        return has_ended


async def _cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel(reason="in a hurry")


class _Pipes:
    """The three pipes of a worker. What is still open at the end is closed."""

    def __init__(self) -> None:
        self.boot_read = self.boot_write = -1
        self.life_read = self.life_write = -1
        self.output_read = self.output_write = -1
        try:
            self.boot_read, self.boot_write = os.pipe()
            self.life_read, self.life_write = os.pipe()
            self.output_read, self.output_write = os.pipe()
        except OSError:
            self.__exit__()
            raise

    def __enter__(self) -> "_Pipes":
        return self

    def close_childs_ends(self) -> None:
        self._close("boot_read", "life_read", "output_write")

    def open_gate(self) -> None:
        self._close("boot_write")

    def give_output(self) -> int:
        """The end to read the output from; the caller closes it from now on."""
        descriptor, self.output_read = self.output_read, -1
        return descriptor

    def __exit__(self, *_: object) -> None:
        self._close(
            "boot_read", "boot_write", "life_read", "life_write", "output_read", "output_write"
        )

    def _close(self, *names: str) -> None:
        for name in names:
            descriptor = getattr(self, name)
            if descriptor >= 0:
                os.close(descriptor)
                setattr(self, name, -1)
