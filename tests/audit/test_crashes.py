"""A writer that is killed at any moment leaves a log that is good, or torn at its end alone."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from rbee.audit.place import place_in
from rbee.audit.reading import verify
from rbee.audit.verify import FlawKind
from tests.audit.log import entries, events, good, trail_in

KILLS = int(os.environ.get("RBEE_AUDIT_KILLS", "12"))


def run_and_kill(state_dir: Path, begin: int, chance: random.Random) -> int:
    """Returns the last deed that the writer was told is recorded."""
    command = [sys.executable, "-m", "tests.audit.restless_writer", str(state_dir), str(begin)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    acknowledged = int(process.stdout.readline())
    time.sleep(chance.uniform(0, 0.08))  # the moment is meant to be any
    os.kill(process.pid, signal.SIGKILL)
    rest = process.stdout.read().splitlines(keepends=True)
    process.wait(10)
    process.stdout.close()
    whole = [int(line) for line in rest if line.endswith(b"\n")]
    return whole[-1] if whole else acknowledged


def test_a_killed_writer_leaves_at_worst_a_torn_line_and_no_deed_without_its_record(
    quick_path: Path,
) -> None:
    chance = random.Random(7)
    place = place_in(quick_path)
    acknowledged: list[int] = []
    torn = 0
    for _ in range(KILLS):
        begin = acknowledged[-1] if acknowledged else 0
        acknowledged.append(run_and_kill(quick_path, begin, chance))
        flaw = verify(place).flaw
        if flaw is not None:
            assert flaw.kind is FlawKind.TORN, flaw
            torn += 1
        deeds = {entry["details"].get("problem") for entry in entries(place, is_torn=bool(flaw))}
        assert {f"deed {number}" for number in acknowledged} <= deeds
    trail = trail_in(quick_path)
    trail.append([])
    trail.close()
    good(place)
    told = events(place)
    assert "audit.damaged" not in told
    assert told.count("audit.repaired") == torn


def test_a_line_torn_by_a_kill_is_found_and_set_right_wherever_it_was_torn(
    quick_path: Path,
) -> None:
    """What a kill in the middle of a write of many pages leaves, at each of its bytes."""
    trail = trail_in(quick_path)
    trail.append([])
    trail.close()
    place = place_in(quick_path)
    last_seq = 0
    for size in range(1, 200, 7):
        [file] = place.folder.glob("*.jsonl")
        with file.open("ab") as log:
            log.write(b'{"seq":%d,"time":"' % (last_seq + 1) + b"x" * size)
        flaw = verify(place).flaw
        assert flaw is not None
        assert (flaw.kind, flaw.seq) == (FlawKind.TORN, last_seq + 1)
        trail = trail_in(quick_path)
        trail.append([])
        last_seq = trail.head.seq
        trail.close()
        good(place)
    assert set(events(place)) == {"audit.repaired"}
