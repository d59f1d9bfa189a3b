"""Scenarios in which the supervisor is struck, or what it stands on."""

from dataclasses import replace
from typing import Final

from rbee.chaos import clock_faults, reload_faults
from rbee.chaos import server_faults as faults
from rbee.chaos.clients import Load
from rbee.chaos.engine_faults import PROMPT
from rbee.chaos.preparations import AUDIT_SECRET, CERTIFICATE, TLS_KEY, make_secrets
from rbee.chaos.scenario import Expected, Scenario
from rbee.chaos.setting import Setting

FAILED: Final = frozenset({"worker_failed"})
STRAYS: Final = Setting(
    synthetic='fault = "stray_child"', worker="term_after_s = 0.5\nkill_after_s = 1"
)
KILLED: Final = Expected(may_cut=True, exit_code=-9)
ENDED: Final = Expected(refusals=frozenset({"draining", "model_unavailable"}), end_s=12)
SECRETS: Final = Setting(
    has_tls=True,
    prepare=make_secrets,
    audit=f'secret_file = "{{folder}}/{AUDIT_SECRET}"',
    more=(
        f'[tls]\ncertificate_file = "{{folder}}/{CERTIFICATE}"\nkey_file = "{{folder}}/{TLS_KEY}"\n'
    ),
)
REJECTED: Final = Expected(errors=frozenset({"config_rejected"}))

OF_SERVERS: Final = (
    Scenario(
        name="server-killed",
        fault=faults.kill_server,
        expected=KILLED,
        ends="by fault",
        is_quick=True,
    ),
    Scenario(
        name="server-killed-with-daemons",
        fault=faults.kill_server,
        setting=STRAYS,
        expected=KILLED,
        ends="by fault",
    ),
    Scenario(
        name="server-and-warden-killed",
        fault=faults.kill_server_and_warden,
        setting=STRAYS,
        expected=replace(KILLED, is_next_to_clean=True),
        ends="by fault",
        is_quick=True,
    ),
    Scenario(
        name="server-terminated-under-load",
        fault=faults.terminate_under_load,
        expected=ENDED,
        ends="by fault",
        is_quick=True,
    ),
    Scenario(
        name="server-terminated-twice",
        fault=faults.terminate_twice,
        load=Load(tokens=(600, 900)),  # 6 s and more
        expected=replace(ENDED, end_s=4),
        ends="by fault",
        is_quick=True,
    ),
    Scenario(
        name="server-terminated-while-workers-start",
        fault=faults.terminate_while_starting,
        expected=replace(ENDED, errors=FAILED),
        ends="by fault",
    ),
    Scenario(name="reload-storm", fault=faults.storm_reloads),
    Scenario(
        name="reload-broken-config",
        fault=reload_faults.break_files,
        setting=SECRETS,
        expected=REJECTED,
        needs=("openssl",),
    ),
    Scenario(
        name="secret-file-lost",
        fault=reload_faults.lose_secrets,
        setting=SECRETS,
        expected=REJECTED,
        is_quick=True,
        needs=("openssl",),
    ),
    Scenario(
        name="clock-jumps",
        fault=clock_faults.jump,
        setting=Setting(has_key=True, has_own_clock=True),
    ),
    Scenario(name="server-paused", fault=faults.pause_server, is_quick=True),
    Scenario(name="box-paused", fault=faults.pause_box),
    Scenario(
        name="server-without-descriptors",
        fault=faults.exhaust_descriptors,
        expected=Expected(errors=FAILED, restarts=(1, 3), may_refuse_connections=True),
    ),
    Scenario(
        name="server-without-log-reader",
        fault=faults.close_log,
        expected=Expected(restarts=(1, 1)),
    ),
    Scenario(
        name="log-reader-stalls",
        fault=faults.stall_log,
        setting=Setting(synthetic=f'fault = "chatter"\nfault_prompt = "{PROMPT}"'),
    ),
    Scenario(
        name="run-dir-emptied",
        fault=faults.delete_sockets,
        expected=Expected(errors=FAILED, restarts=(1, 1)),
    ),
    Scenario(
        name="run-dir-deleted",
        fault=faults.delete_run_dir,
        expected=Expected(errors=FAILED, restarts=(1, 1)),
    ),
    Scenario(
        name="run-dir-disk-full",
        fault=faults.fill_run_dir,
        setting=Setting(small_disk="run"),
        expected=Expected(errors=FAILED, restarts=(1, 3)),
        needs=("root",),
    ),
    Scenario(
        name="state-dir-disk-full",
        fault=faults.fill_state_dir,
        setting=Setting(small_disk="state"),
        expected=Expected(errors=FAILED | {"audit_failing"}, restarts=(1, 1)),
        needs=("root",),
    ),
    Scenario(
        name="server-may-not-fork",
        fault=faults.refuse_forks,
        expected=Expected(errors=FAILED, restarts=(1, 3)),
        needs=("root", "cgroup v1"),
    ),
    Scenario(name="box-starved", fault=faults.starve, is_alone=True),
)
