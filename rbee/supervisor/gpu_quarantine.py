"""GPUs on which no worker is started, as a process that survived SIGKILL may hold their memory.

One that hangs in the driver cannot be killed, and what it had of the GPU is not given back. The
next worker would find the memory taken, fail, and be restarted for nothing. It ends by itself,
when the process is gone after all; else only a reset of the GPU or a reboot helps.
"""

from collections.abc import Iterable

from rbee.supervisor.kin import Identity, is_alive


class GpuQuarantine:
    """Asked before each spawn. Only `Custody.release` adds to it."""

    def __init__(self) -> None:
        self._holders: dict[int, dict[Identity, str]] = {}

    def add(self, gpu: int, worker_id: str, survivors: Iterable[Identity]) -> None:
        holders = self._holders.setdefault(gpu, {})
        holders.update(dict.fromkeys(survivors, worker_id))

    def problem(self, gpu: int) -> str:
        """Why that GPU may not be used now; "" when it may. Forgets who is gone."""
        holders = {
            identity: worker_id
            for identity, worker_id in self._holders.get(gpu, {}).items()
            if is_alive(identity)
        }
        self._holders[gpu] = holders
        if not holders:
            return ""
        told = ", ".join(f"{each.pid} of {worker_id}" for each, worker_id in holders.items())
        return (
            f"GPU {gpu} is in quarantine: process {told} survived SIGKILL and may hold its memory;"
            " reset the GPU (nvidia-smi --gpu-reset) or reboot"
        )
