"""Hundreds of simulated histories, and that they can be trusted.

These are short, of 400 virtual seconds each; `make simulate` plays whole hours.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.simulate import simulate

ROOT = Path(__file__).parent.parent.parent
DURATION_S = 400.0
STORMY_SEED = 3


def run(*arguments: str, **environment: str) -> str:
    """What ``python -m tests.simulation`` prints; it must find nothing wrong."""
    # These processes are not measured: that would take most of their time.
    kept = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        cwd=ROOT, env={**kept, **environment}, capture_output=True, text=True, timeout=600,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def test_200_seeds_break_no_invariant() -> None:
    told = run("--seeds", "0:200", "--duration-s", f"{DURATION_S:g}")
    assert "200 seeds of 400 s" in told
    counts = {how: int(count) for count, how in _rows(told)}
    # What is looked at did happen, and not once or twice.
    for how in ("whole", "workers", "restarts", "failed request_quarantined"):
        assert counts[how] > 50, told


def _rows(told: str) -> list[list[str]]:
    return [line.split(maxsplit=1) for line in told.splitlines() if line.startswith("  ")]


def test_each_planted_bug_is_found() -> None:
    told = run("--mutants", "--seeds", "0:150", "--duration-s", f"{DURATION_S:g}")
    assert "0 of 27 planted bugs were not found" in told


def test_the_same_seed_gives_the_same_history() -> None:
    first, second = simulate(STORMY_SEED, DURATION_S), simulate(STORMY_SEED, DURATION_S)
    assert first.is_good
    assert first.digest == second.digest
    assert first.events == second.events
    assert simulate(STORMY_SEED + 1, DURATION_S).digest != first.digest


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_another_process_replays_the_same_history(hash_seed: str) -> None:
    expected = simulate(STORMY_SEED, DURATION_S)
    arguments = ("--replay", f"{STORMY_SEED}", "--duration-s", f"{DURATION_S:g}")
    told = run(*arguments, PYTHONHASHSEED=hash_seed)
    assert told.splitlines()[-1] == f"{expected.digest} good"
