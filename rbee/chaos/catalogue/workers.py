"""Scenarios in which a worker is struck from outside."""

import signal
from typing import Final

from rbee.chaos import worker_faults as faults
from rbee.chaos.clients import Load
from rbee.chaos.scenario import Expected, Scenario
from rbee.chaos.setting import Setting

FAILED: Final = frozenset({"worker_failed"})
UNKILLABLE: Final = frozenset({"worker_unkillable", "processes_unkillable", "cgroups_left"})
PATIENT: Final = "failures_max = 1000\ndelay_s_min = 0.2\ndelay_s_max = 0.2\n"
BEE_TINY: Final = Setting(engine="bee-tiny", model="threads = 1")


def _once(restarts: int = 1) -> Expected:
    return Expected(errors=FAILED, restarts=(restarts, restarts))


OF_WORKERS: Final = (
    Scenario(
        name="worker-killed-idle",
        fault=faults.kill_idle,
        load=Load(clients=0),
        expected=_once(),
    ),
    Scenario(
        name="worker-killed-busy",
        fault=faults.end_busy_by(signal.SIGKILL),
        expected=_once(),
        is_quick=True,
    ),
    Scenario(
        name="worker-killed-alone",
        fault=faults.end_busy_by(signal.SIGKILL),
        setting=Setting(slots=1),
        expected=_once(),
        is_quick=True,
    ),
    Scenario(
        name="worker-killed-in-prefill",
        fault=faults.kill_in_prefill,
        # A worker reads prompts for most of the time, and no other answer of its own hides that.
        setting=Setting(synthetic="first_token_s = 1"),
        load=Load(clients=3),
        expected=_once(),
    ),
    Scenario(
        name="worker-killed-in-decode",
        fault=faults.end_busy_by(signal.SIGKILL),
        setting=BEE_TINY,
        load=Load(clients=4),
        expected=_once(),
        is_quick=True,
    ),
    Scenario(
        name="worker-killed-while-loading",
        fault=faults.kill_while_loading,
        setting=Setting(synthetic="load_s = 1"),
        expected=_once(2),
        is_quick=True,
    ),
    Scenario(
        name="worker-killed-while-registering",
        fault=faults.kill_while_registering,
        expected=_once(2),
    ),
    Scenario(name="worker-killed-once-ready", fault=faults.kill_once_ready, expected=_once(3)),
    Scenario(
        name="worker-killed-while-restarting",
        fault=faults.kill_while_restarting,
        # It may have drained before the signal came.
        expected=Expected(errors_too=FAILED, restarts=(1, 1)),
    ),
    Scenario(
        name="worker-killed-in-shutdown",
        fault=faults.kill_in_shutdown,
        expected=Expected(errors=FAILED, refusals=frozenset({"draining"})),
        ends="by fault",
        is_quick=True,
    ),
    Scenario(name="worker-segfaults", fault=faults.end_busy_by(signal.SIGSEGV), expected=_once()),
    Scenario(name="worker-aborts", fault=faults.end_busy_by(signal.SIGABRT), expected=_once()),
    Scenario(name="worker-terminated", fault=faults.end_busy_by(signal.SIGTERM), expected=_once()),
    Scenario(name="worker-stopped", fault=faults.stop_busy, expected=_once(), is_quick=True),
    Scenario(name="worker-stopped-for-a-moment", fault=faults.stop_and_continue),
    Scenario(
        name="worker-uninterruptible",
        fault=faults.hang_in_kernel,
        # 3 s until it counts as hung, 5 s until it is given up, and the next one has to start.
        expected=Expected(errors=FAILED | UNKILLABLE, restarts=(1, 1), healed_s=15),
        is_quick=True,
        needs=("root", "freezer"),
    ),
    Scenario(name="all-workers-killed", fault=faults.kill_all, expected=_once(2), is_quick=True),
    Scenario(
        name="sixteen-workers-at-once",
        is_alone=True,
        fault=faults.start_many,
        setting=Setting(slots=16),
        expected=Expected(errors=FAILED, restarts=(16, 16), away_s=20, healed_s=20),
    ),
    Scenario(
        name="half-of-the-workers-each-second",
        fault=faults.kill_often,
        setting=Setting(slots=4, restart=PATIENT),
        expected=Expected(errors=FAILED, restarts=(60, 180)),
        limit_s=150,
    ),
    Scenario(
        name="worker-restarted", fault=faults.restart_busy, expected=Expected(restarts=(1, 1))
    ),
    Scenario(
        name="fifty-restarts",
        fault=faults.churn,
        setting=Setting(slots=4),
        expected=Expected(restarts=(0, 60)),
        limit_s=150,
    ),
    Scenario(
        name="crowd-with-a-kill-each-two-seconds",
        is_alone=True,
        fault=faults.kill_now_and_then,
        setting=Setting(engine="bee-tiny", model="threads = 1", restart=PATIENT),
        load=Load(clients=200, timeout_s=120),
        expected=Expected(errors=FAILED, restarts=(20, 35), away_s=60, healed_s=20),
        limit_s=300,
    ),
)
