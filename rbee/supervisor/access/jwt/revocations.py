"""Revocations of JWTs in the store: read, written, and watched for what others revoke.

Rule 1: it has a connection of its own: what it waits for, keys do not wait for.
Rule 2: only this class changes what `RevokedJwts` has of the store.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import trio

from rbee.audit import NO_AUDIT, Audit
from rbee.audit.events import JwtRevoked
from rbee.errors import StoreError
from rbee.jwt_config import JwtConfig
from rbee.logs import Log
from rbee.store import RevokedToken, Store, open_store
from rbee.supervisor.access.instant import rfc_3339
from rbee.supervisor.access.jwt.revoked import RevokedJwts
from rbee.supervisor.access.retention import kept_until_s
from rbee.threads import thread_refusals

T = TypeVar("T")

# How soon what another process revokes is seen. A look costs some 50 us in a thread.
LOOK_EVERY_S: Final = 0.25


class Revocations:
    """The revocations in the store.

    Args:
      path: of the store's file. Whoever keeps the keys makes it, and sets a broken one aside.
      audit: hears of what other processes revoke.
    """

    def __init__(
        self, path: Path, config: JwtConfig, revoked: RevokedJwts, log: Log, audit: Audit = NO_AUDIT
    ) -> None:
        self._path = path
        self._config = config
        self._issuer = config.issuer
        self._revoked = revoked
        self._log = log
        self._audit = audit
        self._store: Store | None = None
        self._version = -1
        self._known: dict[str, int] | None = None  # None: nobody has looked yet
        self._trouble = ""
        self._limiter = trio.CapacityLimiter(1)

    def open(self) -> None:
        """Read what was revoked, before trio runs; or go on without, and try again."""
        try:
            found = self._look()
        except StoreError as error:
            self._note_trouble(error)
            return
        assert found is not None
        self._take(found)

    def close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None

    def listed(self) -> dict[str, int]:
        """What was revoked and has not expired, here or elsewhere: when it expires, by ``jti``."""
        return {**self._revoked.shared, **self._revoked.own}

    def record_of(self, jti: str, expires_s: int) -> JwtRevoked:
        """What the audit log hears of a revocation."""
        return JwtRevoked(issuer=self._issuer, jti=jti, expires=rfc_3339(expires_s))

    async def run(self) -> None:
        """Look for what others have revoked, until cancelled."""
        while True:
            await trio.sleep(LOOK_EVERY_S)
            try:
                found = await self._in_thread(self._look)
            except StoreError as error:
                self._note_trouble(error)
                continue
            if self._trouble:
                self._trouble = ""
                self._log.info("jwt_revocations_available")
            if found is not None:
                self._take(found)

    def kept_until_s(self, expires_s: int | None) -> int:
        """Until when a revocation that is made now is kept; see `retention`."""
        return kept_until_s(self._config, time.time(), expires_s)

    async def revoke(self, jti: str, until_s: int) -> None:
        """Revoke a JWT; it is refused when this returns. The caller has recorded it.

        Args:
          until_s: as long as it is kept; see `kept_until_s`.
        Raises:
          StoreError: it could not be kept.
        """

        def change() -> dict[str, int]:
            if self._store is None or not self._store.is_in_place():
                raise StoreError(f"the store {self._path} is not there")
            self._store.revocations.add(token, int(time.time()))
            self._version = -1  # a change of our own does not show in the store's number
            return self._read(self._store)

        token = RevokedToken(issuer=self._issuer, jti=jti, expires_s=until_s)
        # What was done to the store must reach who asks, whoever waits for it.
        with trio.CancelScope(shield=True):
            try:
                found = await self._in_thread(change)
            except StoreError as error:
                self._log.warning("jwt_not_revoked", problem=str(error))
                raise
        if self._known is not None:
            self._known[jti] = found.get(jti, until_s)  # an earlier one may hold for longer
        self._take(found)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            with thread_refusals():
                return await trio.to_thread.run_sync(work, limiter=self._limiter)
        except OSError as error:
            raise StoreError(f"the store cannot be asked: {error.strerror}") from error

    def _look(self) -> dict[str, int] | None:
        """What was revoked, if it may have changed. In a thread."""
        if self._store is not None and not self._store.is_in_place():
            self.close()
        if self._store is None:
            self._version = -1
            self._store = open_store(self._path, create=False)
        if self._store is None:
            raise StoreError(f"the store {self._path} has gone: put it back, or start again")
        version = self._store.data_version()
        if version == self._version:
            return None
        found = self._read(self._store)
        self._version = version
        return found

    def _read(self, store: Store) -> dict[str, int]:
        rows = store.revocations.all(int(time.time()))
        return {row.jti: row.expires_s for row in rows if row.issuer == self._issuer}

    def _take(self, found: dict[str, int]) -> None:
        """Take over what the store has; record what another process has changed in it."""
        before, self._known = self._known, found
        if before is not None:
            actor = f"operator:{os.geteuid()}"  # the file is closed to all others
            for jti, _ in found.items() - before.items():
                self._audit.record(self.record_of(jti, found[jti]), actor=actor)
        self._revoked.replace_own(found)

    def _note_trouble(self, error: StoreError) -> None:
        if not self._trouble:
            self._trouble = str(error)
            self._log.warning(
                "jwt_revocations_unavailable", problem=str(error),
                effect="none can be added" if self._known is not None else "no JWT is taken",
            )  # fmt: skip
