"""One child process in its own session: spawned, watched by pidfd, killed as a group, reaped.

Rule 1: spawned from the main thread, without `preexec_fn`. A cached helper thread would, by
        PDEATHSIG, take healthy children with it when it ends after 10 s of idleness.
Rule 2: a signal goes to a pidfd, or to the group of a leader that is not reaped yet: such a
        number cannot have been given to another process.
Rule 3: the leader is reaped last, when the rest of its group was killed.
"""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from typing import Final

import trio

from rbee.supervisor.kin import Identity, start_ticks

# How long SIGKILL may take to act on a process whose end was not waited for.
REAP_TIMEOUT_S: Final = 1.0


class Process:
    """A process that this one has started. Close it, whatever happens."""

    def __init__(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        descriptors: Sequence[int],
        output_fd: int,
    ) -> None:
        """Start it.

        Raises:
          OSError: it could not be started: no such file, no memory, no more processes.
        """
        assert threading.current_thread() is threading.main_thread(), "Rule 1"
        _keep_exit_statuses()
        self._popen = subprocess.Popen(  # noqa: S603  # argv is our own, no shell
            list(argv),
            env=dict(environment),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output_fd,
            stderr=output_fd,
            pass_fds=tuple(descriptors),
            start_new_session=True,
        )
        self.pid: Final = self._popen.pid
        self._pidfd = -1
        try:
            self._pidfd = os.pidfd_open(self.pid)
            self.identity: Final = Identity(self.pid, start_ticks(self.pid))
        except OSError:  # a process that cannot be watched must not run
            self.reap()
            raise

    async def wait_ended(self) -> None:
        """Wait until the leader has ended. It is not reaped yet."""
        await trio.lowlevel.wait_readable(self._pidfd)

    def signal_leader(self, number: signal.Signals) -> None:
        """Send a signal to the leader alone. Does nothing once it has ended."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to all of the group. What has ended already does not matter."""
        if self._popen.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def reap(self, *, waits: bool = True) -> int | None:
        """Kill what is left of the group, and take the leader's exit status.

        Args:
          waits: for the kill to act, for a moment in which nothing else runs, if `wait_ended`
            has not returned.

        Returns:
          The exit code, or minus the signal that ended it. None: not even SIGKILL ended it.
        """
        self.signal_group(signal.SIGKILL)
        status: int | None = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = self._popen.wait(REAP_TIMEOUT_S if waits else 0)
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        return status


def _keep_exit_statuses() -> None:
    """Have children become zombies until they are reaped: Rule 2 stands on it.

    Where SIGCHLD is ignored, which is inherited (``trap "" CHLD`` in a shell), the kernel
    reaps them itself: every crash would look like exit code 0.
    """
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
