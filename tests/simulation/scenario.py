"""What is to happen in one simulation. It is drawn from its seed, before it begins: `draw`.

Rule: each part has a random source of its own, named after the seed and the part. So the requests
of a seed stay the same when it is changed how faults are drawn.
"""

import enum
import random
from dataclasses import dataclass
from typing import Final

from rbee.config import RestartConfig, WorkerConfig
from rbee.rate_limits import Priority
from tests.simulation.oracle import Script

# From the last fault on, until all must be served again.
HEAL_S: Final = 100.0

# What is asked then must be answered within so much.
CALM_S: Final = 150.0


class Weather(enum.Enum):
    """Which faults there are."""

    FAIR = "fair"  # none
    OUTSIDE = "outside"  # workers are killed from outside; boxes freeze
    POISON = "poison"  # as above, and there are requests that end their workers
    STORM = "storm"  # everything


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """One model, its slots, and how fast its workers are."""

    name: str
    slots: tuple[str, ...]
    batch_size: int
    import_s: float
    load_s: float
    load_marks: int  # signs of loading
    step_s: float
    step_tokens_max: int
    prompt_tokens_per_s: float
    prompt_chunk: int
    reads_beside: bool  # prompts are read in the steps that bring the others their tokens
    link_messages_max: int
    lag_s: float  # of what a worker says, at most


@dataclass(frozen=True, slots=True)
class GpuPlan:
    """A GPU that all workers share; all of them fit on it once they are loaded."""

    total: int
    least: int  # that a worker asks for
    most: int
    holds: int  # when it is loaded
    late_s: float  # from a process' end until its memory is back
    lists: bool  # the driver tells who holds how much
    room_timeout_s: float
    faults: tuple[tuple[float, str], ...]  # from when on the driver is in which mood


class Leaving(enum.Enum):
    """How a client may go before its answer is whole."""

    STAYS = "stays"
    HANGS_UP = "hangs_up"
    CANCELS = "cancels"
    READS_SLOWLY = "reads_slowly"
    BREAKS = "breaks"  # found out by a write


@dataclass(frozen=True, slots=True)
class Arrival:
    """One order of one client."""

    number: int
    at_s: float
    model: str
    scripts: tuple[Script, ...]  # one for each prompt
    choices: int  # of each prompt
    is_streamed: bool
    include_usage: bool
    deadline_s: float  # from its arrival
    first_token_s: float
    stall_s: float
    priority: Priority = Priority.NORMAL
    leaving: Leaving = Leaving.STAYS
    leaves_after_s: float = 0.0
    leaves_at_write: int = 0
    status_after_s: float = 0.0  # from the first word to the status on the wire
    is_calm: bool = False  # nothing goes wrong any more: must be answered


class Deed(enum.Enum):
    """What happens from outside."""

    RESTART = "restart"
    STOP = "stop"
    RESET = "reset"
    KILL = "kill"  # SIGKILL to a worker
    TERM = "term"
    SUSPEND = "suspend"  # the supervisor does not run for a while
    FREEZE = "freeze"  # nothing on the box does


@dataclass(frozen=True, slots=True)
class Act:
    at_s: float
    deed: Deed
    slot: str = ""
    lasts_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Scenario:
    seed: int
    weather: Weather
    duration_s: float
    stormy_s: float  # until then there are faults
    ends_calm: bool
    shutdown_s: float  # when the first signal comes
    hurry_after_s: float | None  # when the second one does
    drain_s: float
    queue_max: int
    worker: WorkerConfig
    restart: RestartConfig
    models: tuple[ModelPlan, ...]
    arrivals: tuple[Arrival, ...]
    acts: tuple[Act, ...]
    fault_share: float  # of worker processes that have one
    gpu: GpuPlan | None  # None: workers use none


def chance(seed: int, part: str) -> random.Random:
    return random.Random(f"{seed}/{part}")
