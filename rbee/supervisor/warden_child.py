"""The supervisor's side of the warden: starts it, sees that it stays, tells it when all is done."""

import os
import sys
from typing import Final

import trio

from rbee.logs import Log
from rbee.supervisor.instance import Instance
from rbee.supervisor.process import Process
from rbee.supervisor.warden import DONE

ENVIRONMENT_KEPT: Final = ("PATH", "LANG", "COVERAGE_PROCESS_CONFIG")

# Between two tries, where it was killed or cannot be started.
RETRY_AFTER_S: Final = 5.0

# After DONE it has nothing to do but to end.
END_TIMEOUT_S: Final = 2.0

_STDERR: Final = 2


async def keep_warden(
    instance: Instance, log: Log, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Keep a warden beside us. Cancelling tells it that nothing is left, and reaps it."""
    task_status.started()
    while True:
        try:
            await _run_warden(instance, log)
        except OSError as error:
            log.warning("warden_not_started", problem=error.strerror)
        await trio.sleep(RETRY_AFTER_S)


async def _run_warden(instance: Instance, log: Log) -> None:
    ours_fd, theirs_fd = -1, -1
    try:
        theirs_fd, ours_fd = os.pipe()
        arguments = [str(theirs_fd), str(instance.run_dir), instance.name, *instance.folders]
        process = Process(
            [sys.executable, "-I", "-m", "rbee.supervisor.warden", *arguments],
            {key: os.environ[key] for key in ENVIRONMENT_KEPT if key in os.environ},
            [theirs_fd],
            _STDERR,
        )
        instance.adopted.born(process.pid)
        log.debug("warden_started", pid=process.pid)
        try:
            await process.wait_ended()
            log.warning("warden_ended", pid=process.pid)
        except trio.Cancelled:
            os.write(ours_fd, DONE)
            with trio.move_on_after(END_TIMEOUT_S, shield=True):
                await process.wait_ended()
            raise
        finally:
            process.reap()
            instance.adopted.forget(process.pid)
    finally:
        for descriptor in (ours_fd, theirs_fd):
            if descriptor >= 0:
                os.close(descriptor)
