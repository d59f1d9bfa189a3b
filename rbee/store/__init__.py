"""The store: what must outlive the supervisor, in one SQLite file. Only this room knows SQLite.

Rule 1: all here is synchronous, and may be called from any thread. The supervisor calls it in a
        thread of its own; a command calls it as it is.
Rule 2: rows go in and out as frozen values. What they mean is for those who read them.
Rule 3: no secret is kept: of keys their argon2id hashes.
"""

from rbee.store.anchors import Anchors, AuditHead
from rbee.store.keys import KEYS_MAX, KeyRow, Keys
from rbee.store.opening import FILE_NAME, has_aside, open_store, set_aside
from rbee.store.revocations import Revocations, RevokedToken
from rbee.store.store import Store

__all__ = [
    "FILE_NAME", "KEYS_MAX", "Anchors", "AuditHead", "KeyRow", "Keys", "Revocations",
    "RevokedToken", "Store", "has_aside", "open_store", "set_aside",
]  # fmt: skip
