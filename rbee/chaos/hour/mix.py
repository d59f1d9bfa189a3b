"""The faults of the hour: those of the catalogue that a running server can be put to."""

from collections.abc import Mapping
from typing import Final

from rbee.chaos.answers import End
from rbee.chaos.catalogue import SCENARIOS
from rbee.chaos.scenario import Fault
from rbee.chaos.scene import Missed, Scene
from rbee.chaos.server import DrillError

# These strike any server, one after the other.
_AS_THEY_STAND: Final = (
    "worker-killed-busy", "worker-killed-while-loading", "worker-killed-while-registering",
    "worker-killed-once-ready", "worker-killed-while-restarting", "worker-segfaults",
    "worker-aborts", "worker-terminated", "worker-stopped", "worker-stopped-for-a-moment",
    "all-workers-killed", "worker-restarted", "reload-storm", "server-paused", "box-paused",
    "server-without-descriptors", "run-dir-emptied", "run-dir-deleted", "clients-vanish",
    "clients-idle", "clients-read-nothing", "clients-write-slowly", "clients-half-close",
    "clients-send-nonsense",
)  # fmt: skip

# Requests that make a worker go wrong, by the fault that the synthetic engine is asked for.
_GUILTY: Final = {
    "worker-exits-0-unasked": "exit",
    "worker-crashes-on-a-request": "crash",
    "worker-panics": "panic",
    "worker-out-of-memory": "out_of_memory",
    "worker-beats-without-tokens": "hang_in_step",
    "worker-livelocked": "silent_step",
    "worker-deadlocked": "hang_with_gil",
    "worker-in-a-busy-loop": "spin_with_gil",
    "link-garbage": "garbage",
    "link-oversize": "oversize",
    "link-token-twice": "repeat",
    "link-answer-unasked": "unasked",
}
_HARMLESS: Final = {
    "worker-leaks-descriptors": "leak_descriptors",
    "worker-talks-much": "chatter",
    "worker-stops-to-beat": "no_beats",
}

# How a guilty request may end: found out, or struck by so many other faults besides.
_ENDS: Final = ("request_quarantined", "worker_failed")


def _prompted(fault: str, *, is_guilty: bool) -> Fault:
    """A request that asks for a fault; no two are the same, as one that was found is refused."""

    async def ask_for_it(scene: Scene) -> None:
        judged = await scene.ask(f"[fault={fault}] {scene.chance.getrandbits(48)}")
        told = f"the request at fault ended {judged.end.value} ({judged.what})"
        if judged.end is End.LOST or (judged.end is End.REFUSED and judged.what not in _ENDS):
            raise DrillError(told)
        if (judged.end is End.SERVED) == is_guilty:  # another one had its fault in its place
            raise Missed(told)

    return ask_for_it


MIX: Final[Mapping[str, Fault]] = {
    **{name: SCENARIOS[name].fault for name in _AS_THEY_STAND},
    **{name: _prompted(fault, is_guilty=True) for name, fault in _GUILTY.items()},
    **{name: _prompted(fault, is_guilty=False) for name, fault in _HARMLESS.items()},
}
