"""What a worker may take of the machine, and by what that is held. Pure rules.

Rule 1: memory is always held: by a cgroup, and where there is none by a watch that adds up what
        the worker's processes hold and kills them. The watch is later and coarser; it is said.
Rule 2: cpus and tasks_max need a cgroup. Where there is none, a configuration that asks for them
        is refused at the start: a limit that does not hold is worse than none.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from rbee.config import ModelConfig
from rbee.errors import ConfigError

# What the kernel's controllers are called, and the key that needs them.
CONTROLLERS: Final = {"memory": "memory_bytes_max", "cpu": "cpus", "pids": "tasks_max"}

WATCHED: Final = "watch"


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one worker with all of its descendants. None: no limit."""

    memory_bytes_max: int | None = None
    cpus: float | None = None
    tasks_max: int | None = None

    def of(self, controller: str) -> float | None:
        value: float | None = getattr(self, CONTROLLERS[controller])
        return value


def limits_of(model: ModelConfig) -> Limits:
    return Limits(model.memory_bytes_max, model.cpus, model.tasks_max)


def controllers_needed(limits: Iterable[Limits]) -> list[str]:
    """The cgroup controllers to ask for.

    That of memory is always among them: it also counts whom the kernel killed when the whole
    machine had none left.
    """
    every = list(limits)
    return [
        controller
        for controller in CONTROLLERS
        if controller == "memory" or any(each.of(controller) is not None for each in every)
    ]


@dataclass(frozen=True, slots=True)
class Holding:
    """By what each limit is held: "cgroup2", "cgroup1", "watch", or "" for not limited."""

    memory: str
    cpus: str
    tasks: str


def judge_holding(limits: Limits, means: Mapping[str, str]) -> Holding:
    """By what the limits of one worker are held.

    Args:
      means: by controller, the version of cgroups that has it; "" where none has.
    """

    def by(controller: str, otherwise: str) -> str:
        if limits.of(controller) is None:
            return ""
        return means[controller] or otherwise

    return Holding(memory=by("memory", WATCHED), cpus=by("cpu", ""), tasks=by("pids", ""))


def check_limits(
    model: str, limits: Limits, means: Mapping[str, str], problems: Iterable[str]
) -> None:
    """Refuse what nothing here can hold.

    Raises:
      ConfigError: names the model, the key and the reason.
    """
    for controller in ("cpu", "pids"):
        if limits.of(controller) is not None and not means[controller]:
            why = "; ".join(each for each in problems if each.startswith(controller + ":"))
            raise ConfigError(
                f"model {model}: {CONTROLLERS[controller]} cannot be held here ({why});"
                " take the key away, or start rbee where it may have cgroups: as root, or by"
                " systemd with Delegate=yes (systemd-run --user --scope -p Delegate=yes)"
            )


def descriptors_problem(limit: int, workers: int, per_worker: int, kept: int) -> str:
    """Whether the limit on open files leaves room for clients. "" if it does.

    Args:
      limit: of the process.
      per_worker: descriptors that one worker costs the supervisor.
      kept: what must be left for connections.
    """
    needed = workers * per_worker + kept
    if limit >= needed:
        return ""
    return (
        f"the limit on open files is {limit}; {workers} workers and their clients need at least"
        f" {needed}: ulimit -n 65536, or LimitNOFILE=65536 in the systemd unit"
    )
