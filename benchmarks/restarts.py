"""From `kill -9` of a worker to the process that takes its place, without back-off.

The kernel's list of the supervisor's children is read again and again until it holds a new
process; only the workers of our own server are killed. Between two kills the worker loads.
"""

import argparse
import json
import os
import signal
import sys
import time
from typing import Final

from figures import percentile
from processes import Running, ServerError, children
from servers import STARTS, Counting, wait_workers

NEW_PROCESS_TIMEOUT_S: Final = 10.0
LOOK_EVERY_S: Final = 0.0002  # at the kernel's list
ASK_EVERY_S: Final = 0.01  # the server, whether the worker is ready


def main() -> int:
    options = _options()
    counting = Counting(streams=8, tokens_per_s=20.0, workers=1, restart_delay_s=0.0)
    process_ms: list[float] = []
    ready_ms: list[float] = []
    with STARTS[options.server](counting) as server:
        for _ in range(options.kills):
            started_s, ready_s = kill_once(server)
            process_ms.append(1000 * started_s)
            ready_ms.append(1000 * ready_s)
    if options.json:
        print(json.dumps({"process_ms": process_ms, "ready_ms": ready_ms}))
        return 0
    print(f"| {options.server}, {options.kills} kills | p50, ms | p95, ms | max, ms |")
    print("|---|---:|---:|---:|")
    for title, found in (("new process", process_ms), ("ready again", ready_ms)):
        cells = (percentile(found, 50), percentile(found, 95), max(found))
        print(f"| {title} | " + " | ".join(f"{cell:.1f}" for cell in cells) + " |")
    return 0


def kill_once(server: Running) -> tuple[float, float]:
    """Kill the worker that serves.

    Returns:
      Seconds until a new process was there, and until it was ready.
    """
    supervisor = server.front_pids[0]
    (victim,) = wait_workers(server.port)
    before = set(children(supervisor))
    killed_s = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    while not (new := set(children(supervisor)) - before):
        if time.monotonic() > killed_s + NEW_PROCESS_TIMEOUT_S:
            raise ServerError(f"no new worker came in {NEW_PROCESS_TIMEOUT_S} s")
        time.sleep(LOOK_EVERY_S)
    started_s = time.monotonic() - killed_s
    while set(wait_workers(server.port)) != new:  # the view may still hold the one that was killed
        time.sleep(ASK_EVERY_S)
        if time.monotonic() > killed_s + NEW_PROCESS_TIMEOUT_S:
            raise ServerError(f"worker {new} was not ready in {NEW_PROCESS_TIMEOUT_S} s")
    return started_s, time.monotonic() - killed_s


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", choices=("rbee", "rbee-no-lane"), default="rbee")
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--json", action="store_true", help="print all times as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
