"""What the synthetic engine's faults say on the link: bytes and messages that break its rules."""

import os
from typing import Final, Protocol

from rbee.engine.synthetic_faults import LinkFault
from rbee.wire import BODY_BYTES_MAX, VERSION, Beat, Delta, Phase, Step, encode

FLOOD_MESSAGES: Final = 1000  # in each step
NEVER_S: Final = 86_400.0
_UNKNOWN_REQUEST: Final = 2**52


class Mouth(Protocol):
    """What this needs of the link."""

    def send(self, frames: list[bytes]) -> None: ...
    def start_beating(self, beat_s: float) -> None: ...


def misbehave(fault: LinkFault, link: Mouth, step: Step) -> None:
    """Say what may not be said, after ``step`` was done, and told if it brought anything."""
    match fault:
        case "garbage":
            link.send([b"\xff\x00 no message", os.urandom(64)])
        case "oversize":
            link.send([VERSION, bytes(BODY_BYTES_MAX + 1)])
        case "repeat":
            if step.deltas:
                link.send(encode(step))
        case "unasked":
            link.send(encode(Step(step.step, (Delta(_UNKNOWN_REQUEST, 0, (1,), "x"),))))
        case "flood":
            for _ in range(FLOOD_MESSAGES):
                link.send(encode(Beat(Phase.DECODE, step.step, 0, {}, 0.0, 0, 0)))
        case "no_beats":
            link.start_beating(NEVER_S)
