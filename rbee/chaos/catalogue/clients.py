"""Scenarios in which clients misbehave."""

from typing import Final

from rbee.chaos import client_faults as faults
from rbee.chaos.engine_faults import PROMPT
from rbee.chaos.scenario import Expected, Scenario
from rbee.chaos.setting import Setting

OF_CLIENTS: Final = (
    Scenario(name="clients-vanish", fault=faults.vanish, is_quick=True),
    Scenario(name="clients-idle", fault=faults.idle, is_quick=True),
    Scenario(name="clients-read-nothing", fault=faults.read_nothing),
    Scenario(name="clients-write-slowly", fault=faults.write_slowly),
    Scenario(name="clients-half-close", fault=faults.half_close),
    Scenario(name="clients-send-nonsense", fault=faults.nonsense),
    Scenario(
        name="shutdown-with-slow-readers",
        fault=faults.stop_before_slow_readers,
        expected=Expected(refusals=frozenset({"draining"}), end_s=13),
        ends="by fault",
    ),
    Scenario(
        name="request-poisoned",
        fault=faults.poison,
        setting=Setting(synthetic=f'fault = "crash"\nfault_prompt = "{PROMPT}"'),
        expected=Expected(
            errors=frozenset({"worker_failed", "request_quarantined"}), restarts=(2, 4)
        ),
        is_quick=True,
    ),
)
