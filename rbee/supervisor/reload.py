"""Reads again, at SIGHUP, what may change while the server runs.

Rule 1: all parts are read and checked before the first is put into force. If one cannot be
        used, nothing changes.
Rule 2: it is recorded before it is done.
Rule 3: however many ask, reloads come one after the other, and not too often. Who asks while
        one runs gets another one afterwards.
"""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import trio

from rbee.errors import AuditError, ConfigError
from rbee.logs import Log
from rbee.threads import thread_refusals

# A storm of signals costs one line of the log, and one record, in each such time.
EVERY_S_MIN: Final = 1.0


class Part(Protocol):
    """Something that is read from files."""

    def prepare(self) -> tuple[str, Callable[[], None]] | None:
        """Read it again, and check it. Changes nothing yet. Called in a thread.

        Returns:
          The key of what changed, and what puts it into force; None: nothing has changed.

        Raises:
          ConfigError: it cannot be used.
        """
        ...


class Record(Protocol):
    """Where it is written down. Raises: AuditError: it cannot be, so it must not be done."""

    async def config_reloaded(self, changed: tuple[str, ...]) -> None: ...

    async def config_rejected(self, problem: str) -> None: ...


class Reloader:
    """Reloads when asked."""

    def __init__(self, parts: Sequence[Part], record: Record, log: Log) -> None:
        self._parts = parts
        self._record = record
        self._log = log
        self._asked = trio.Event()
        self._one_reload = trio.CapacityLimiter(1)

    def ask(self) -> None:
        self._asked.set()

    async def keep_reloading(self) -> None:
        """Until cancelled. A reload that has begun is then given up, or wholly in force; a thread
        may stay behind that reads from a disk which hangs. It changes nothing.
        """
        while True:
            await self._asked.wait()
            self._asked = trio.Event()
            await self._reload()
            await trio.sleep(EVERY_S_MIN)

    async def _reload(self) -> None:
        try:
            with thread_refusals():
                prepared = await trio.to_thread.run_sync(
                    self._prepare, limiter=self._one_reload, abandon_on_cancel=True
                )
            changed = tuple(key for key, _ in prepared)
            await self._record.config_reloaded(changed)
        except (ConfigError, AuditError, OSError) as error:
            await self._reject(str(error))
            return
        for _, put_into_force in prepared:
            put_into_force()
        self._log.info("config_reloaded", changed=list(changed))

    def _prepare(self) -> list[tuple[str, Callable[[], None]]]:
        found = [part.prepare() for part in self._parts]
        return [each for each in found if each is not None]

    async def _reject(self, problem: str) -> None:
        self._log.error("config_rejected", problem=problem, effect="all stays as it was")
        try:
            await self._record.config_rejected(problem)
        except AuditError as error:
            self._log.error("config_rejection_not_recorded", problem=str(error))
