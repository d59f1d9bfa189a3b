"""Keeps the keyring as the store has it, also while a command changes the store beside us.

Rule 1: the only holder of the supervisor's store. Everything that touches the disk runs in a
        thread: a slow disk or a lock of another process holds up nobody but who asked.
Rule 2: a store that cannot be used costs nothing that is known: the keys of the last look stay
        good, and those that were revoked stay revoked. It is told once, and tried again. One
        that could not be written can be used again once something was written.
Rule 3: a store that is found broken at the start is set aside, and keys are asked for until an
        operator has made new ones: what was locked is not open because the lock is broken.
Rule 4: where a store cannot be read at the start, or made, nobody gets in without a key. Once
        it was read it is as at a start that reads it at once, unless it had gone meanwhile. Only
        where there is none and none can be begun it is as configured: nobody could wait for it.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, Literal, TypeVar

import trio

from rbee.audit import NO_AUDIT, Audit
from rbee.errors import KeysFullError, StoreCorruptError, StoreError, StoreUnmadeError
from rbee.logs import Log
from rbee.store import KeyRow, Store, has_aside, open_store, set_aside
from rbee.supervisor.access.keyring import Keyring
from rbee.supervisor.access.minting import created, revoked
from rbee.threads import thread_refusals

T = TypeVar("T")

# How soon a change by another process is seen. A look costs some 50 us in a thread.
LOOK_EVERY_S: Final = 0.25

StoreState = Literal["ok", "unavailable", "replaced"]


class Keeper:
    """The keys in the store, and what is done to them.

    Args:
      path: of the store's file.
    """

    def __init__(self, path: Path, keyring: Keyring, log: Log, audit: Audit = NO_AUDIT) -> None:
        self._path = path
        self._keyring = keyring
        self._log = log
        self._audit = audit
        self._store: Store | None = None
        self._version = -1
        self._rows: dict[str, KeyRow] | None = None  # None: nobody has looked yet
        self._recorded: set[str] = set()  # keys whose last change the audit log knows already
        self._trouble = ""
        self._must_rehearse = False  # the last change failed; written in threads, one at a time
        self._was_replaced = False
        self._was_absent = False  # at the start, where it could not be read: it may be made later
        self._is_presumed = False  # keys are asked for only because nobody has looked yet
        self._limiter = trio.CapacityLimiter(1)

    @property
    def state(self) -> StoreState:
        """Whether the store can be used; "replaced": it can, but an earlier one was broken."""
        if self._trouble or self._store is None:
            return "unavailable"
        return "replaced" if self._was_replaced else "ok"

    def rows(self) -> list[KeyRow]:
        """All keys, as they were at the last look."""
        return list((self._rows or {}).values())

    def row(self, key_id: str) -> KeyRow | None:
        return (self._rows or {}).get(key_id)

    # --- before trio runs, and after

    def open(self) -> None:
        """Open the store, or go on without it. Waits for the disk."""
        try:
            try:
                self._store = open_store(self._path)
            except StoreCorruptError as error:
                self._store = self._replace_broken(error)
            assert self._store is not None
            self._version = self._store.data_version()
            rows = self._read(self._store)
        except StoreError as error:
            self._note_trouble(error)
            self._presume(error)
            self._version = -1
            return
        self._take(rows)

    def close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None

    def _replace_broken(self, error: StoreCorruptError) -> Store | None:
        aside = set_aside(self._path, time.time())
        self._log.error(
            "store_replaced", problem=str(error), aside=str(aside),
            effect="no key of it is known any more; keys are asked for all the same",
            remedy="restore a backup to its place, or make new keys with `rbee keys create`",
        )  # fmt: skip
        store = open_store(self._path)
        assert store is not None
        store.keys.note_lost(aside.name)
        return store

    def _presume(self, error: StoreError) -> None:
        """Ask for keys, as there may be some. The first look will show whether there are."""
        self._was_absent = _is_absent(self._path)
        may_come = not self._was_absent or isinstance(error, StoreUnmadeError)
        was_lost = has_aside(self._path)  # no look shows what was in that one
        if not self._keyring.is_required and (may_come or was_lost):
            self._keyring.is_required = True
            self._is_presumed = not was_lost

    # --- in trio

    async def run(self) -> None:
        """Look for changes until cancelled."""
        while True:
            await trio.sleep(LOOK_EVERY_S)
            try:
                rows = await self._in_thread(self._look)
                if rows is not None:
                    self._take(rows)
                # By now, as others may write what we may not: a revocation must not wait for that.
                if self._must_rehearse:
                    await self._in_thread(self._rehearse)
            except StoreError as error:
                self._note_trouble(error)
                continue
            if not self._must_rehearse:  # else a change has failed since
                self._note_well()

    async def add(self, row: KeyRow) -> None:
        """Keep a new key.

        Raises:
          StoreError: it could not be kept.
        """
        await self._change(lambda store: store.keys.add(row), [row.id])

    async def replace(self, old_id: str, new: KeyRow, *, retired_s: int, reason: str) -> None:
        """Keep a new key, and let an old one expire; see `rbee.store.Keys.replace`.

        Raises:
          StoreError: it could not be done.
        """
        ours = [old_id, new.id]
        await self._change(
            lambda store: store.keys.replace(old_id, new, retired_s=retired_s, reason=reason), ours
        )

    async def revoke(self, key_id: str, now_s: int, reason: str) -> bool:
        """Revoke a key. False: there is none of that id that is not revoked.

        Raises:
          StoreError: it could not be done.
        """
        return await self._change(lambda store: store.keys.revoke(key_id, now_s, reason), [key_id])

    async def _change(self, act: Callable[[Store], T], recorded: Iterable[str]) -> T:
        def change() -> tuple[T, list[KeyRow]]:
            if self._store is None or not self._store.is_in_place():
                raise StoreError(f"the store {self._path} is not there")
            try:
                result = act(self._store)
                self._version = -1  # a change of our own does not show in the store's number
                self._recorded.update(recorded)
                return result, self._read(self._store)
            except KeysFullError:
                raise
            except StoreError:
                self._distrust()
                raise

        # What was done to the store must reach the keyring, whoever waits for it.
        with trio.CancelScope(shield=True):
            try:
                result, rows = await self._in_thread(change)
            except StoreError as error:
                if not isinstance(error, KeysFullError):
                    self._note_trouble(error)
                raise
        self._take(rows)
        return result

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            with thread_refusals():
                return await trio.to_thread.run_sync(work, limiter=self._limiter)
        except OSError as error:
            raise StoreError(f"the store cannot be asked: {error.strerror}") from error

    def _distrust(self) -> None:
        """Have the next look open the store anew, which finds a broken one, and write to it."""
        self._must_rehearse = True
        store, self._store = self._store, None
        if store is not None:
            with contextlib.suppress(StoreError):
                store.close()

    def _look(self) -> list[KeyRow] | None:
        """The keys, if they may have changed. In a thread."""
        if self._store is not None and not self._store.is_in_place():
            self._store.close()
            self._store = None
        if self._store is None:
            self._version = -1
            # One that was there, and is away to be mended, is waited for.
            may_create = self._was_absent if self._rows is None else not self._keyring.is_required
            self._store = open_store(self._path, create=may_create)
        if self._store is None:
            self._is_presumed = False  # what takes its place does not show what was in it
            raise StoreError(f"the store {self._path} has gone: put it back, or start again")
        version = self._store.data_version()
        if version == self._version:
            return None
        rows = self._read(self._store)
        self._version = version
        # Others than keys are in the store, too: the anchor of the audit log changes often.
        return None if self._rows is not None and rows == self.rows() else rows

    def _read(self, store: Store) -> list[KeyRow]:
        rows = store.keys.all()
        if self._rows is None:
            # On a full disk a broken store is set aside, but that is not noted in the new one.
            self._was_replaced = store.keys.were_lost() or (not rows and has_aside(self._path))
        return rows

    def _rehearse(self) -> None:
        """See whether the store can be written again. In a thread."""
        if self._store is not None:  # else a change has failed since the look
            self._store.rehearse()
            self._must_rehearse = False

    # --- what was found

    def _take(self, rows: list[KeyRow]) -> None:
        """Take over what the store has; record what another process has changed in it."""
        before, self._rows = self._rows, {row.id: row for row in rows}
        recorded, self._recorded = self._recorded, set()
        if before is None:
            is_required = self._keyring.is_required and not self._is_presumed
            self._keyring.is_required = is_required or self._was_replaced
        for key_id in self._keyring.replace(rows):
            self._log.error("key_unusable", key=key_id, effect="it opens nothing")
        if before is None:
            return
        actor = f"operator:{os.geteuid()}"  # the file is closed to all others
        for row in rows:
            old = before.get(row.id)
            if row.id in recorded:
                continue
            if old is None:
                self._audit.record(created(row), actor=actor)
            if _is_ended(row) and (old is None or _end_of(old) != _end_of(row)):
                self._audit.record(revoked(row, row.revoked_for), actor=actor)

    def _note_trouble(self, error: StoreError) -> None:
        if not self._trouble:
            self._trouble = str(error)
            self._log.warning(
                "store_unavailable", problem=str(error),
                effect="the keys that are known stay known; none can be made or revoked",
            )  # fmt: skip

    def _note_well(self) -> None:
        if self._trouble:
            self._trouble = ""
            self._log.info("store_available", keys_required=self._keyring.is_required)
            if self._is_presumed and not self._keyring.is_required:
                warn_of_no_keys(self._log)
            self._is_presumed = False


def warn_of_no_keys(log: Log) -> None:
    log.warning(
        "no_keys", effect="whoever reaches the server may do everything, without a key",
        remedy="make one with `rbee init`, and from then on keys are asked for",
    )  # fmt: skip


def _is_absent(path: Path) -> bool:
    """Whether there is certainly nothing: not where it cannot be told."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _is_ended(row: KeyRow) -> bool:
    """Whether it was revoked, or another took its place."""
    return row.revoked_s is not None or bool(row.revoked_for)


def _end_of(row: KeyRow) -> tuple[int | None, str]:
    return row.revoked_s, row.revoked_for
