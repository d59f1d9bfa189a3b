"""How a shutdown went: measured by this server, told by the next one.

While workers stop nobody can ask any more, so what was measured is left in a file of the state
directory. The next server takes it from there: after a server that was killed there is none.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import trio

from rbee.logs import Log
from rbee.supervisor.views import ShutdownView
from rbee.threads import thread_refusals

FILE: Final = "last_shutdown.json"
FILE_BYTES_MAX: Final = 4096
WRITE_S_MAX: Final = 1.0  # for a disk that hangs

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


class Stopwatch:
    """Measures one shutdown. Its parts are called in this order, each once.

    Args:
      kills: signals that were sent to the worker of each slot, so far.
    """

    def __init__(self, clock: Callable[[], float], kills: Callable[[], Counter[str]]) -> None:
        self._clock = clock
        self._kills = kills
        self._begun_s = self._drained_s = self._closed_s = 0.0
        self._cut_requests = 0
        self._kills_before: Counter[str] = Counter()

    def begun(self) -> None:
        """From here on new requests are refused."""
        self._begun_s = self._clock()
        self._kills_before = self._kills()

    def drained(self, cut_requests: int) -> None:
        """No request is waited for any more."""
        self._drained_s = self._clock()
        self._cut_requests = cut_requests

    def closed(self) -> None:
        """The faces are; the workers are stopped from here on."""
        self._closed_s = self._clock()

    def stopped(self) -> ShutdownView:
        """All workers are gone."""
        return ShutdownView(
            drain_s=round(self._drained_s - self._begun_s, 3),
            faces_s=round(self._closed_s - self._drained_s, 3),
            workers_s=round(self._clock() - self._closed_s, 3),
            cut_requests=self._cut_requests,
            killed_workers=len(self._kills() - self._kills_before),
        )


async def leave(view: ShutdownView, state_dir: Path, log: Log) -> None:
    """Leave it for the next server. A disk that does not take it costs `WRITE_S_MAX` at most."""
    problem = f"not within {WRITE_S_MAX:g} s"
    with trio.move_on_after(WRITE_S_MAX):
        try:
            with thread_refusals():
                await trio.to_thread.run_sync(
                    _write, view, state_dir,
                    limiter=trio.CapacityLimiter(1), abandon_on_cancel=True,
                )  # fmt: skip
        except OSError as error:
            problem = error.strerror or type(error).__name__
        else:
            problem = ""
    if problem:
        log.warning("last_shutdown_not_kept", problem=problem)


def _write(view: ShutdownView, state_dir: Path) -> None:
    path = state_dir / FILE
    draft = path.with_suffix(".part")
    try:
        with open(os.open(draft, _WRITE, 0o600), "wb") as file:  # noqa: PTH123  # flags
            file.write(msgspec.json.encode(view))
        draft.rename(path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


def take(state_dir: Path, log: Log) -> ShutdownView | None:
    """What the server before has left; it is left no more."""
    path = state_dir / FILE
    try:
        with open(os.open(path, _READ), "rb") as file:  # noqa: PTH123  # flags
            found = msgspec.json.decode(file.read(FILE_BYTES_MAX), type=ShutdownView)
        path.unlink()
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        log.warning("last_shutdown_not_known", problem=type(error).__name__)
        with contextlib.suppress(OSError):  # else it would be told at each start
            path.unlink()
        return None
    return found
