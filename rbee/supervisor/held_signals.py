"""Reads signals that are blocked (`rbee.signal_mask`) from a descriptor."""

import contextlib
import os
import signal
import sys
from typing import Final

import trio

from rbee.signal_mask import descriptor_of

_SIGINFO_BYTES: Final = 128  # struct signalfd_siginfo, signalfd(2)
_NUMBER_BYTES: Final = 4  # its first field, ssi_signo


class HeldSignals:
    """Hears some of them. Close it by leaving its block; nobody else may hear the same.

    Raises:
      OSError: there is no descriptor for it.
    """

    def __init__(self, *numbers: signal.Signals) -> None:
        self._descriptor = descriptor_of(*numbers)

    def __enter__(self) -> "HeldSignals":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    async def wait(self) -> signal.Signals:
        """Wait for one, or for what became one of several. Cancelling it loses none."""
        while True:
            await trio.lowlevel.wait_readable(self._descriptor)
            with contextlib.suppress(BlockingIOError):
                found = os.read(self._descriptor, _SIGINFO_BYTES)
                return signal.Signals(int.from_bytes(found[:_NUMBER_BYTES], sys.byteorder))
