"""One connection to the SQLite file: its settings, its transactions, and its errors in our words.

Rule: what SQLite raises leaves here as a `StoreError`; a file that is no store, or a broken one,
      as a `StoreCorruptError`.
"""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from rbee.errors import StoreCorruptError, StoreError
from rbee.store.schema import APPLICATION_ID, STEPS, VERSION

# How long another process may hold the lock: its transactions take milliseconds.
BUSY_TIMEOUT_S: Final = 2.0

# What SQLite keeps beside a file, by the end of its name: it belongs to the file.
COMPANIONS: Final = ("-wal", "-shm", "-journal")

_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_PRIMARY_CODE: Final = 0xFF  # the low byte of an extended code

# A file with a log ahead: who opens it need not write to it, nor lock out all others, for that.
# Source: https://www.sqlite.org/fileformat2.html, 1.3.3 "File format version numbers".
_FORMAT: Final = slice(18, 20)
_FORMAT_WAL: Final = b"\x02\x02"

Values = tuple[str | int | None, ...]


class Database:
    """An open store. `close` it.

    Args:
      path: of a file that is there.
    Raises:
      StoreError: it cannot be used now.
      StoreCorruptError: it is broken, or none of ours.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        with _in_our_words(path):
            self._connection = _connect(path)
        try:
            with _in_our_words(path):
                self._prepare()
            opened = path.stat()
            self._file = opened.st_dev, opened.st_ino
        except OSError as error:
            self._connection.close()
            raise StoreError(f"the store {path} has gone: {error.strerror}") from error
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        with self._lock, _in_our_words(self.path):
            self._connection.close()

    def is_in_place(self) -> bool:
        """Whether the file at the path is still the one that was opened."""
        try:
            found = self.path.stat()
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._file

    def data_version(self) -> int:
        """Another number whenever another connection has changed the store."""
        return int(self.rows("PRAGMA data_version")[0][0])

    def rows(self, statement: str, values: Values = ()) -> list[tuple[Any, ...]]:
        """Read, in a transaction of its own."""
        with self._lock, _in_our_words(self.path):
            return self._connection.execute(statement, values).fetchall()

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it is on the disk at the end of the block, or nothing."""
        with self._lock, _in_our_words(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise

    def rehearse(self) -> None:
        """Write what is there already, as far as to the disk.

        Raises:
          StoreError: nothing can be written now.
        """
        with self.writing() as connection:
            connection.execute(f"PRAGMA user_version = {VERSION}")

    def _prepare(self) -> None:
        execute = self._connection.execute
        version = execute("PRAGMA user_version").fetchone()[0]
        application = execute("PRAGMA application_id").fetchone()[0]
        if application != APPLICATION_ID:
            raise StoreCorruptError(f"{self.path} is a database of another program")
        if version > VERSION:
            message = (
                f"the store {self.path} has version {version}; this rbee knows up to {VERSION}"
            )
            raise StoreError(message)
        found = execute("PRAGMA integrity_check(1)").fetchone()[0]
        if found != "ok":
            raise StoreCorruptError(f"the store {self.path} is broken: {' '.join(found.split())}")
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = FULL")
        execute("PRAGMA trusted_schema = OFF")
        if version < VERSION:
            _upgrade(self._connection)


def empty_store() -> bytes:
    """What the file of a store holds that has all its tables, and nothing in them."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        _upgrade(connection)
        content = bytearray(connection.serialize())
    content[_FORMAT] = _FORMAT_WAL
    return bytes(content)


def read_through(path: Path) -> None:
    """See whether the disk gives what is there: SQLite calls broken what cannot be read.

    SQLite itself reads: whoever else opens and closes the file gives up the locks that this
    process has on it, and the next command takes the log from under those who have it open.

    Raises:
      StoreError: it does not.
      StoreCorruptError: it does, as far as the file goes on.
    """
    with (
        _in_our_words(path),
        contextlib.closing(_connect(path)) as connection,
        contextlib.closing(sqlite3.connect(":memory:")) as copy,
    ):
        connection.backup(copy)


def _upgrade(connection: sqlite3.Connection) -> None:
    execute = connection.execute
    execute("BEGIN IMMEDIATE")
    try:
        # Another process may have done it meanwhile.
        version = execute("PRAGMA user_version").fetchone()[0]
        for step in STEPS[version:]:
            for statement in step:
                execute(statement)
        execute(f"PRAGMA user_version = {VERSION}")
        execute(f"PRAGMA application_id = {APPLICATION_ID}")
        execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            execute("ROLLBACK")
        raise


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_TIMEOUT_S,
        isolation_level=None, check_same_thread=False,
    )  # fmt: skip


@contextlib.contextmanager
def _in_our_words(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        # Errors of the module itself have no code: use after `close` is one.
        code = getattr(error, "sqlite_errorcode", None)
        if code is not None and code & _PRIMARY_CODE in _CORRUPT:
            raise StoreCorruptError(f"the store {path} is broken: {error}") from error
        raise StoreError(f"the store {path} cannot be used now: {error}") from error
