"""How soon a failure is seen and mended (R1, R6, R7). RBEE_TEST_ROUNDS=20 and -s tell figures.

Times are those of the server's own log lines, so what a busy test costs is not counted.
"""

import os
import signal
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from rbee.supervisor.liveness import BEAT_GRACE_S
from rbee.supervisor.worker_life import EVIDENCE_S_MAX
from tests.e2e.server import Server, serving, synthetic_config, wait_until

ROUNDS = int(os.environ.get("RBEE_TEST_ROUNDS", "5"))
HUNG_MAX = 20  # workers at once
BUSY_S = 0.25  # what a machine may be late that does other things, too


def stamp_s(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["timestamp"]).timestamp()


def events(server: Server, name: str) -> list[dict[str, Any]]:
    return [event for event in server.events if event["event"] == name]


def tell(what: str, seconds: Iterable[float]) -> list[float]:
    """Print p50 and p99.

    Returns:
      The figures in order.
    """
    found = sorted(seconds)
    p50, p99 = found[len(found) // 2], found[-1 - len(found) // 100]
    print(f"\n{what}: p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms, n {len(found)}")
    return found


def test_a_crash_is_seen_at_once_and_its_slot_is_filled_when_the_backoff_is_over(
    tmp_path: Path,
) -> None:
    head = "[restart]\ndelay_s_min = 0.2\ndelay_s_max = 0.2\nfailures_max = 1000\n"
    seen_s, late_s = [], []
    with serving(tmp_path, synthetic_config(head=head)) as server:
        for _ in range(ROUNDS):
            [pid] = server.worker_pids()
            killed_s = time.time()
            os.kill(pid, signal.SIGKILL)
            failed = server.wait_event("worker_failed", 5)
            spawned = server.wait_event("worker_spawned", 5)
            seen_s.append(stamp_s(failed) - killed_s)
            late_s.append(stamp_s(spawned) - stamp_s(failed) - failed["restart_in_s"])
            server.wait_event("worker_ready", 10)
    seen, late = tell("crash seen", seen_s), tell("new process after the back-off", late_s)
    assert seen[len(seen) // 2] < 0.1
    assert seen[-1] < 0.1 + BUSY_S
    assert late[0] >= -0.01, "before its back-off was over"
    assert late[len(late) // 2] < 0.05
    assert late[-1] < 0.05 + BUSY_S


@pytest.mark.parametrize("beat_s", [0.5] if ROUNDS < 20 else [0.5, 5.0])
def test_a_hang_is_found_when_the_second_beat_is_missed(beat_s: float, tmp_path: Path) -> None:
    found_s: list[float] = []
    while len(found_s) < ROUNDS:
        folder = tmp_path / f"{len(found_s)}"
        folder.mkdir()
        found_s += _hang_together(folder, beat_s, min(HUNG_MAX, ROUNDS - len(found_s)))
    found = tell(f"killed after the last beat, {beat_s:g} s apart", found_s)
    due_s = 2 * beat_s + BEAT_GRACE_S
    assert found[0] >= due_s - 0.01, "before it was due"
    assert found[-1] < due_s + EVIDENCE_S_MAX + 2 * BUSY_S
    assert found[-1] - beat_s < 10, "after the last beat that was due"


def _hang_together(folder: Path, beat_s: float, workers: int) -> list[float]:
    """Stop all workers of a server at once.

    Returns:
      How long after its last beat each was killed.
    """
    head = f"[worker]\nbeat_s = {beat_s}\n"
    with serving(folder, synthetic_config(head=head, model=f"slots = {workers}")) as server:
        # One that still imports is not judged by its beats.
        wait_until(
            lambda: all(each["state"] == "ready" and each["beats"] for each in server.workers()),
            60,
            "all to be ready, and to beat",
        )
        pids = server.worker_pids()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        now_s = time.time()
        last_beat_s = {each["pid"]: now_s - each["beat_age_s"] for each in server.workers()}
        wait_until(lambda: len(events(server, "crash_reported")) == len(pids), 40, "reports")
        killed = events(server, "worker_killed")
        reported = [event["crash"] for event in events(server, "crash_reported")]
    assert {event["pid"] for event in killed} == set(pids)
    assert all("no beat" in event["reason"] for event in killed)
    assert len(set(reported)) == len(pids)
    return [stamp_s(event) - last_beat_s[event["pid"]] for event in killed]
