"""The tools that measure keys work: short runs of each."""

import random
from pathlib import Path

from tests.security import bad_keys, timing


async def test_times_of_both_kinds_of_bad_keys_are_measured(tmp_path: Path) -> None:
    times = await timing.measure(tmp_path, 4, random.Random(1))
    assert len(times.unknown_s) == len(times.wrong_s) == 4
    # Each of them took an argon2 verification. How close they are, the command tells, over many.
    assert min(times.unknown_s + times.wrong_s) > 0.005
    assert times.difference < 5


def test_a_good_key_is_served_while_bad_ones_are_tried(tmp_path: Path) -> None:
    taken_ms, statuses = bad_keys.measure(tmp_path, 200, 1.0)
    assert taken_ms
    assert set(statuses) == {"401", "429"}
    assert statuses["429"] > statuses["401"], "most of them cost no work"
