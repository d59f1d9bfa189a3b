"""What goes wrong in one worker process by itself: drawn from the seed, the slot and its number."""

import enum
import random
from dataclasses import dataclass
from signal import Signals
from typing import Final

from rbee.errors import ExitCode


class Kind(enum.Enum):
    CRASH = "crash"  # ends by itself
    OUT_OF_MEMORY = "out_of_memory"  # the kernel ends it, and says so
    HANG_MAIN = "hang_main"  # the engine's thread stands; beats go on
    HANG_ALL = "hang_all"  # nothing goes on
    HICCUP = "hiccup"  # the same, for less than a beat: is no fault
    LIVELOCK = "livelock"  # steps, and no tokens
    MUTE = "mute"  # no beats
    GARBAGE = "garbage"  # bytes that are no message
    OUT_OF_TURN = "out_of_turn"  # messages that may not come now


class Stage(enum.Enum):
    """When it happens."""

    IMPORTING = "importing"  # before Hello
    LOADING = "loading"
    SERVING = "serving"


# Exit codes that workers have, the hopeless ones rarely.
EXIT_CODES: Final = (1, 1, 1, ExitCode.ENGINE_FATAL, ExitCode.OUT_OF_MEMORY, ExitCode.PROTOCOL, 0)
HOPELESS_CODES: Final = (ExitCode.CONFIG, ExitCode.DATA, ExitCode.OUT_OF_MEMORY)
SIGNALS: Final = (Signals.SIGSEGV, Signals.SIGABRT, Signals.SIGKILL, Signals.SIGBUS)


@dataclass(frozen=True, slots=True)
class Fault:
    kind: Kind
    stage: Stage
    after_s: float  # in that stage
    after_steps: int  # of serving; counts instead, where it is above 0
    exit_code: int | None
    signal: int | None


@dataclass(frozen=True, slots=True)
class Character:
    """How one process behaves."""

    fault: Fault | None = None
    ignores_stop: bool = False
    ignores_term: bool = False
    unkillable_s: float = 0.0  # so long it survives SIGKILL
    strays: int = 0  # processes that it leaves behind
    kill_lag_s: float = 0.0  # from a signal to its end


HEALTHY: Final = Character()


def character(own: random.Random, fault_share: float) -> Character:
    """Draw one."""
    kill_lag_s = own.choice((0.0, 0.0, 0.001, 0.02))
    if own.random() >= fault_share:
        return Character(kill_lag_s=kill_lag_s, strays=own.choice((0, 0, 0, 2)))
    return Character(
        fault=_fault(own),
        ignores_stop=own.random() < 0.1,
        ignores_term=own.random() < 0.1,
        unkillable_s=own.choice((3.0, 30.0)) if own.random() < 0.03 else 0.0,
        strays=own.choice((0, 0, 0, 2)),
        kill_lag_s=kill_lag_s,
    )


def _fault(own: random.Random) -> Fault:
    kind = own.choices(list(Kind), (8, 2, 3, 3, 4, 2, 1, 1, 2))[0]
    stage = own.choices(list(Stage), (1, 2, 9))[0]
    exit_code: int | None = None
    number: int | None = None
    if kind is Kind.CRASH:
        if own.random() < 0.5:
            hopeless = stage is not Stage.SERVING and own.random() < 0.2
            exit_code = int(own.choice(HOPELESS_CODES if hopeless else EXIT_CODES))
        else:
            number = int(own.choice(SIGNALS))
    return Fault(
        kind=kind,
        stage=stage,
        after_s=own.choice((0.0, own.uniform(0.0, 5.0), own.uniform(0.0, 400.0))),
        after_steps=own.choice((0, 1, 5, 50, 300)) if stage is Stage.SERVING else 0,
        exit_code=exit_code,
        signal=number,
    )
