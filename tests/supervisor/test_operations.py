"""What operators are shown of workers."""

import pytest

from rbee.supervisor.ledger import Held, Stage
from rbee.supervisor.operations import vram_bytes
from rbee.wire import Beat, Phase


def beat(said_bytes: int) -> Beat:
    return Beat(Phase.IDLE, 0, 0, {}, 0.0, rss_bytes=1, vram_bytes=said_bytes)


def held(nvml_bytes: int | None) -> Held:
    return Held(0, next(iter(Stage)), 10, nvml_bytes)


@pytest.mark.parametrize(
    ("said", "booked", "told"),
    [
        (None, None, None),
        (beat(0), None, None),  # no GPU
        (beat(0), held(None), None),  # neither NVML nor the engine can tell
        (beat(7), held(None), 7),
        (beat(7), held(8), 8),
        (None, held(8), 8),
        (beat(7), held(0), 0),
    ],
)
def test_memory_of_a_gpu_is_told_by_who_knows_it_and_else_not_at_all(
    said: Beat | None, booked: Held | None, told: int | None
) -> None:
    assert vram_bytes(said, booked) == told
