"""The streaming benchmark runs against the real server, and no token is lost in it."""

import json
import subprocess
import sys
from pathlib import Path

STREAMING = Path(__file__).parents[2] / "benchmarks" / "streaming.py"
STREAMS = 20
TOKENS_PER_S = 20


def test_twenty_streams_through_the_real_server_lose_no_token() -> None:
    command = [sys.executable, str(STREAMING), "--only", "rbee", "--json", "--rounds", "1"]
    command += ["--streams", str(STREAMS), "--tokens-per-s", str(TOKENS_PER_S)]
    command += ["--ramp-s", "0.3", "--measure-s", "1.5"]

    ran = subprocess.run(command, capture_output=True, check=False, timeout=60)

    assert ran.returncode == 0, ran.stderr.decode()
    (found,) = json.loads(ran.stdout)["rbee"]
    assert found["faults"] == []
    assert (found["lost"], found["duplicated"], found["errors"]) == (0, 0, 0)
    assert found["offered_per_s"] == STREAMS * TOKENS_PER_S
    assert found["delivered_per_s"] > 0
