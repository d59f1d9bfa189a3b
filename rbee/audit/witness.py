"""The witness: the store keeps the anchor of the audit log once more.

Who puts back older files of the log, together with their older anchor, leaves nothing that shows
it, but what the store knows.

Rule 1: what the store says was on the disk before it was told: each of its anchors is one that
        the log must still reach.
Rule 2: no trouble with the store stops the log; `problem` tells it.
Rule 3: a store is never made here. One that is missing may be missed by others, too.
"""

import contextlib
from pathlib import Path
from typing import Final

from rbee.audit.anchor import Anchor
from rbee.errors import StoreError
from rbee.store import AuditHead, Store, open_store

NAME: Final = "audit"


class Witness:
    """Reads and writes the anchor in the store at ``path``. For one thread; `close` it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._store: Store | None = None
        self.problem = ""  # why the store could not be asked the last time

    def anchor(self) -> Anchor | None:
        """What the store knows; None: nothing, or it cannot be asked."""
        try:
            store = self._opened()
            head = None if store is None else store.anchors.get(NAME)
        except StoreError as error:
            self._fail(error)
            return None
        self.problem = ""
        return None if head is None else Anchor(head.seq, head.hash, head.first_seq, head.seal)

    def tell(self, anchor: Anchor) -> None:
        """Have the store keep an anchor, unless it keeps a later one."""
        head = AuditHead(
            seq=anchor.seq, hash=anchor.hash, first_seq=anchor.first_seq, seal=anchor.seal
        )
        try:
            store = self._opened()
            if store is not None:
                store.anchors.put(NAME, head)
        except StoreError as error:
            self._fail(error)
        else:
            self.problem = ""

    def close(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            with contextlib.suppress(StoreError):
                store.close()

    def _opened(self) -> Store | None:
        """The store that lies there now; None: there is none."""
        if self._store is not None and not self._store.is_in_place():
            self.close()
        if self._store is None:
            self._store = open_store(self._path, create=False)
        return self._store

    def _fail(self, error: StoreError) -> None:
        self.close()
        self.problem = str(error)
