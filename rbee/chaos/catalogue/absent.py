"""Kinds of faults that no drill puts to a server yet, each with the reason."""

from typing import Final

from rbee.chaos.scenario import Absent

_GPU: Final = "needs an NVIDIA GPU"
_NOT_BUILT: Final = "the part that it would befall is not built yet"

ABSENT: Final = (
    Absent("gpu-out-of-memory", _GPU),
    Absent("gpu-driver-lies", _GPU),
    Absent("loopback-loses-packets", "needs a kernel with netem (CONFIG_NET_SCH_NETEM)"),
    Absent("power-cut", "would befall the whole machine: needs a virtual machine of its own"),
    Absent("disk-errors", "needs a block device that fails: a virtual machine of its own"),
    Absent("disk-slow", "needs a block device that waits: a virtual machine of its own"),
    Absent("download-disk-full", _NOT_BUILT),
    Absent("download-peer-stalls", _NOT_BUILT),
    Absent("model-replaced-after-check", "models are not checked by their hash yet"),
)
