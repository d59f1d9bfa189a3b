"""An open store, with all its tables."""

from typing import Self

from rbee.store.anchors import Anchors
from rbee.store.database import Database
from rbee.store.keys import Keys
from rbee.store.revocations import Revocations


class Store:
    """What outlives the supervisor. `close` it, or use it as a context manager."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.keys = Keys(database)
        self.revocations = Revocations(database)
        self.anchors = Anchors(database)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._database.close()

    def is_in_place(self) -> bool:
        """Whether the file at its path is still the one that was opened."""
        return self._database.is_in_place()

    def rehearse(self) -> None:
        """Find out whether it can be written. Raises: StoreError: not now."""
        self._database.rehearse()

    def data_version(self) -> int:
        """Another number whenever another process has changed the store."""
        return self._database.data_version()
