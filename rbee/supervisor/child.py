"""A worker's process and link, as the rest of the supervisor sees them. `launch.py` has them."""

from typing import Protocol

import trio


class Child(Protocol):
    """A running engine process with its link, as `Launch` hands it over."""

    @property
    def pid(self) -> int: ...

    @property
    def secret(self) -> bytes: ...

    def send(self, frames: list[bytes]) -> None:
        """Raises: LinkFullError."""
        ...

    async def receive(self) -> list[bytes]:
        """Raises: trio.ClosedResourceError when the child is gone."""
        ...

    def receive_nowait(self) -> list[bytes] | None: ...

    def ask_stacks(self) -> None:
        """Have it print the stacks of its threads, with its output. Does not wait for them."""
        ...

    def kill(self, reason: str) -> None:
        """SIGKILL to the process and all that descends from it, now. Says why in the log."""
        ...

    @property
    def was_killed(self) -> trio.Event:
        """Set once it was sent SIGKILL by us, whoever asked for it."""
        ...

    @property
    def cause(self) -> str:
        """What the kernel, or a limit of ours, has ended it for: "out_of_memory: ..."; or ""."""
        ...

    async def wait_exit(self) -> tuple[int | None, int | None]:
        """Exit code and signal, one of them None. Returns when all its descendants are gone.

        Both are None where not even SIGKILL has ended it.
        """
        ...


class Launch(Protocol):
    """Starts an engine process, and owns it until it is reaped. Use with `nursery.start`.

    Cancelling it runs the stop ladder; it returns when the process is gone.
    """

    async def __call__(self, worker_id: str, *, task_status: trio.TaskStatus[Child]) -> None: ...
