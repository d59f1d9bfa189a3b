"""Kinds of faults that no drill puts to a server yet, each with the reason."""

from typing import Final

from rbee.chaos.scenario import Absent

_GPU: Final = "needs an NVIDIA GPU"
_MACHINE: Final = "would befall the whole machine: needs a virtual machine of its own"
_BY_TESTS: Final = "no drill holds it yet; tests of the part alone do"
_NOT_BUILT: Final = "the part that it would befall is not built yet"

ABSENT: Final = (
    Absent("gpu-out-of-memory", _GPU),
    Absent("gpu-driver-lies", _GPU),
    Absent("worker-uninterruptible", "a process that hangs in the kernel: needs a broken driver"),
    Absent("clock-jumps", _MACHINE),
    Absent("loopback-loses-packets", _MACHINE),
    Absent("power-cut", _MACHINE),
    Absent("disk-errors", "needs a block device that fails: a virtual machine of its own"),
    Absent("disk-slow", "needs a block device that waits: a virtual machine of its own"),
    Absent("reload-broken-config", _NOT_BUILT),
    Absent("secret-file-lost", "specs/310-secrets.feature holds a server to it, under TLS"),
    Absent("store-disk-full", "no drill holds it yet"),
    Absent("store-locked", _BY_TESTS),
    Absent("store-corrupt", _BY_TESTS),
    Absent("download-disk-full", _NOT_BUILT),
    Absent("download-peer-stalls", _NOT_BUILT),
    Absent("model-replaced-after-check", "models are not checked by their hash yet"),
)
