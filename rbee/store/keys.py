"""The table of API keys: hashes and rights, never a key."""

import sqlite3
from typing import Final

import msgspec

from rbee.errors import KeysFullError, StoreCorruptError
from rbee.store.database import Database

# A supervisor holds all of them in memory. Revoked ones count until they are forgotten.
KEYS_MAX: Final = 10_000

# A revoked key is kept that long, so that its bearer is told so, and listings show it.
REVOKED_KEPT_S: Final = 90 * 86_400

_COLUMNS: Final = (
    "id, hash, fingerprint, name, role, models, limits, created_s, expires_s, revoked_s,"
    " revoked_for"
)
_LOST: Final = "keys_lost"


class KeyRow(msgspec.Struct, frozen=True, kw_only=True):
    """One key, as it is kept. Times are Unix time, in whole seconds."""

    id: str
    hash: str  # argon2id, in the PHC string format
    fingerprint: str  # the first 6 hex digits of the key's SHA-256
    name: str
    role: str
    models: tuple[str, ...]  # empty: all
    limits: dict[str, int | str]
    created_s: int
    expires_s: int | None = None
    revoked_s: int | None = None
    revoked_for: str = ""  # or why it is about to expire: another took its place


class Keys:
    """Reads and writes the table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[KeyRow]:
        """Every key that was not forgotten, the oldest first.

        Raises:
          StoreError: they cannot be read now.
        """
        statement = f"SELECT {_COLUMNS} FROM keys ORDER BY created_s, id"  # noqa: S608  # a constant
        return [_row(values) for values in self._database.rows(statement)]

    def add(self, row: KeyRow) -> None:
        """Keep a new key.

        Raises:
          KeysFullError: there are `KEYS_MAX` already.
          StoreError: it could not be written.
        """
        with self._database.writing() as connection:
            _insert(connection, row)

    def replace(self, old_id: str, new: KeyRow, *, retired_s: int, reason: str) -> None:
        """Keep a new key, and let an old one expire, in one step.

        Args:
          retired_s: when the old key expires; one that expires earlier keeps its time.
          reason: why, as listings and records of the old one have it.
        Raises:
          KeysFullError: there are `KEYS_MAX` already.
          StoreError: it could not be written.
        """
        with self._database.writing() as connection:
            _insert(connection, new)
            connection.execute(
                "UPDATE keys SET expires_s = min(coalesce(expires_s, ?), ?), revoked_for = ?"
                " WHERE id = ? AND revoked_s IS NULL",
                (retired_s, retired_s, reason, old_id),
            )

    def put_back(self, old: KeyRow, new_id: str, *, reason: str, now_s: int, undone: str) -> None:
        """Undo `replace`: revoke the new key, and have the old one as it was.

        Args:
          reason: of the replacement. What was done to the old key since stays.
          undone: why the new key is revoked.
        Raises:
          StoreError: it could not be written.
        """
        with self._database.writing() as connection:
            _revoke(connection, new_id, now_s, undone)
            connection.execute(
                "UPDATE keys SET expires_s = ?, revoked_for = ?"
                " WHERE id = ? AND revoked_s IS NULL AND revoked_for = ?",
                (old.expires_s, old.revoked_for, old.id, reason),
            )

    def revoke(self, key_id: str, now_s: int, reason: str) -> bool:
        """Revoke a key. False: there is none of that id that is not revoked.

        Raises:
          StoreError: it could not be written.
        """
        with self._database.writing() as connection:
            return _revoke(connection, key_id, now_s, reason)

    def were_lost(self) -> bool:
        """Whether this store took the place of a broken one, with keys that nobody knows."""
        return bool(self._database.rows("SELECT 1 FROM facts WHERE name = ?", (_LOST,)))

    def note_lost(self, aside: str) -> None:
        """Remember that this store took the place of a broken one, which is now at ``aside``."""
        with self._database.writing() as connection:
            connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (_LOST, aside))


def _insert(connection: sqlite3.Connection, row: KeyRow) -> None:
    connection.execute(
        "DELETE FROM keys WHERE revoked_s IS NOT NULL AND revoked_s < ?",
        (row.created_s - REVOKED_KEPT_S,),
    )
    if connection.execute("SELECT count(*) FROM keys").fetchone()[0] >= KEYS_MAX:
        raise KeysFullError(f"there are {KEYS_MAX} keys, as many as there may be")
    values = {name: getattr(row, name) for name in KeyRow.__struct_fields__}
    values["models"] = msgspec.json.encode(row.models).decode()
    values["limits"] = msgspec.json.encode(row.limits).decode()
    places = ", ".join(f":{name.strip()}" for name in _COLUMNS.split(","))
    statement = f"INSERT INTO keys ({_COLUMNS}) VALUES ({places})"  # noqa: S608  # our own names
    connection.execute(statement, values)


def _revoke(connection: sqlite3.Connection, key_id: str, now_s: int, reason: str) -> bool:
    done = connection.execute(
        "UPDATE keys SET revoked_s = ?, revoked_for = ? WHERE id = ? AND revoked_s IS NULL",
        (now_s, reason, key_id),
    )
    return done.rowcount > 0


def _row(values: tuple[object, ...]) -> KeyRow:
    named = dict(zip(KeyRow.__struct_fields__, values, strict=True))
    try:
        for name in ("models", "limits"):
            named[name] = msgspec.json.decode(str(named[name]))
        return msgspec.convert(named, KeyRow)
    except msgspec.MsgspecError as error:
        raise StoreCorruptError(f"the store has a key that is none: {error}") from error
