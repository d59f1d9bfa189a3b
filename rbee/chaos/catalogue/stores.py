"""Scenarios in which the store of keys is struck, while an operator makes keys."""

from typing import Final

from rbee.chaos import store_faults as faults
from rbee.chaos.scenario import Expected, Scenario
from rbee.chaos.setting import Setting

KEYED: Final = Setting(has_key=True)

OF_STORES: Final = (
    Scenario(
        name="store-disk-full",
        fault=faults.fill_disk,
        # The audit log lies on that disk, too: so deeds come as far as to the store.
        setting=Setting(has_key=True, small_disk="state", audit='on_failure = "open"'),
        expected=Expected(errors=frozenset({"audit_failing"})),
        needs=("root",),
    ),
    Scenario(name="store-locked", fault=faults.lock, setting=KEYED),
    Scenario(
        name="store-corrupt",
        fault=faults.overwrite,
        setting=KEYED,
        expected=Expected(successor_errors=frozenset({"store_replaced"})),
        successor=faults.check_knows_no_key,
    ),
)
