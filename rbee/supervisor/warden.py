"""``python -m rbee.supervisor.warden FD RUN_DIR INSTANCE [CGROUP...]``: outlives its supervisor.

A worker ends by itself when the supervisor is gone, but what it has started in a session of its
own does not. The warden is a small process beside the supervisor, and waits at a pipe: `DONE`
means that the supervisor has left nothing; the pipe's end without it means that it was killed.
Then the warden does what the next supervisor would do at its start, and ends.

Rule 1: it acts on the one instance that it was started for: a new supervisor may be running.
        All that it must know stands in its arguments: the run directory may be deleted by then.
Rule 2: it heeds no signal that may be stopped: the shutdown of a whole box ends it with DONE.
"""

import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Final

from rbee.hardening import forbid_core_files, forbid_looking_inside
from rbee.supervisor.orphans import sweep
from rbee.supervisor.records import InstanceRecord, this_machine

DONE: Final = b"."
_EXIT_USAGE: Final = 64
_EXIT_LEFT: Final = 70


def main(arguments: list[str]) -> int:
    """Wait for the supervisor's end, and clear up after it if it was not its own."""
    if len(arguments) < 3 or not arguments[0].isdecimal():
        print("rbee.supervisor.warden is started by `rbee serve`", file=sys.stderr)  # noqa: T201
        return _EXIT_USAGE
    forbid_core_files()
    forbid_looking_inside()
    descriptor, run_dir = int(arguments[0]), Path(arguments[1])
    killed = InstanceRecord(arguments[2], this_machine(), tuple(arguments[3:]))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    if os.read(descriptor, 1) == DONE:
        return 0
    swept = sweep(run_dir, killed)
    event = {"event": "warden_swept", "instance": killed.instance, **asdict(swept)}
    os.write(2, json.dumps(event).encode() + b"\n")
    return _EXIT_LEFT if swept.unkillable else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
