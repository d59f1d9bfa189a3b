"""By what rbee can hold its workers here: their limits, and all that they start."""

from typing import TYPE_CHECKING

from rbee.cli.checks.finding import Finding

if TYPE_CHECKING:
    from rbee.config import Config
    from rbee.supervisor.cgroup import Means

_MEND = (
    "start rbee where it may divide its cgroup: as root, or by systemd with Delegate=yes "
    "(systemd-run --user --scope -p Delegate=yes rbee serve)"
)


def check_cgroups(config: "Config") -> Finding:
    from rbee.supervisor.cgroup import foresee, own_places

    return judge_means(foresee(own_places()), config)


def judge_means(means: "Means", config: "Config") -> Finding:
    """Whether the limits of the configuration can be held, and by what."""
    from rbee.errors import ConfigError
    from rbee.supervisor.limits import check_limits, judge_holding, limits_of

    by_controller = {"memory": means.memory, "cpu": means.cpu, "pids": means.pids}
    found = ", ".join(f"{role}: {by or 'no'}" for role, by in by_controller.items())
    found += f"; processes are killed by {means.kill or 'their mark'}"
    why = f" ({'; '.join(means.problems)})" if means.problems else ""
    for model in config.model:
        try:
            check_limits(model.name or model.ref, limits_of(model), by_controller, means.problems)
        except ConfigError as error:
            return Finding("cgroups", "fail", str(error), _MEND)
        if judge_holding(limits_of(model), by_controller).memory == "watch":
            told = f"memory_bytes_max is only watched, not held by the kernel{why}"
            return Finding("cgroups", "warn", told, _MEND)
    if not means.kill:
        told = f"{found}: a process that hides from its worker may be missed{why}"
        return Finding("cgroups", "warn", told, _MEND)
    return Finding("cgroups", "ok", found)
