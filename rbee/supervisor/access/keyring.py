"""The keys that are known, and who has shown that they have one. Pure but for its random secret.

Rule 1: a key that was found good is recognised by a digest under a secret of this process: no
        key is held, and who could read the digests could use none of them.
Rule 2: only `replace` changes the keys. It says which have ended, so that what runs for them
        can be ended, too.
Rule 3: once keys were asked for they stay asked for, whatever becomes of the store: a lost file
        opens no door. Only what the keeper presumed of a store it could not read it takes back.
"""

import hmac
import secrets
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from rbee.rate_limits import Limits
from rbee.store import KeyRow
from rbee.supervisor.access.api_key import is_key_id
from rbee.supervisor.access.hashing import is_well_hashed
from rbee.supervisor.access.principal import KEY_ACTOR, Principal, Role

# Keys that were found to be bad, so that a client which goes on with one costs no argon2.
BAD_KEYS_MAX: Final = 1024

_SECRET_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Key:
    """One key, ready to be used."""

    principal: Principal
    hash: str = field(repr=False)
    fingerprint: str
    is_revoked: bool

    @property
    def id(self) -> str:
        return self.principal.credential_id

    def fault(self, now_unix_s: float) -> str:
        """Why it is not taken, in one word of the audit log; "": it is."""
        if self.is_revoked:
            return "revoked"
        expires = self.principal.expires_unix_s
        return "expired" if expires is not None and now_unix_s >= expires else ""


class Keyring:
    """Every key that the store has.

    Args:
      is_required: keys are asked for even if there are none.
    """

    def __init__(self, *, is_required: bool = False) -> None:
        self.is_required = is_required
        self._secret = secrets.token_bytes(_SECRET_BYTES)
        self._keys: dict[str, Key] = {}
        self._rows: dict[str, KeyRow] = {}  # of which they were made
        self._good: dict[bytes, str] = {}  # the digest of a key -> its id
        self._bad: OrderedDict[bytes, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._keys)

    def has_usable_keys(self, now_unix_s: float) -> bool:
        return any(not key.fault(now_unix_s) for key in self._keys.values())

    def replace(self, rows: Iterable[KeyRow]) -> list[str]:
        """Take the keys of the store in place of those that were known.

        Returns:
          The ids of those that are no keys: of a role, limits or a hash that is not ours.
        """
        keys: dict[str, Key] = {}
        kept: dict[str, KeyRow] = {}
        unusable: list[str] = []
        for row in rows:
            # There may be thousands, of which one has changed.
            is_as_before = self._rows.get(row.id) == row
            key = self._keys[row.id] if is_as_before else _key_of(row)
            if key is None:
                unusable.append(row.id)
            else:
                keys[key.id], kept[key.id] = key, row
        self._rows = kept
        self.is_required = self.is_required or bool(keys) or bool(unusable)
        self._keys = keys
        self._good = {digest: key_id for digest, key_id in self._good.items() if key_id in keys}
        self._bad.clear()  # one of them may have been made meanwhile
        return unusable

    def find(self, key_id: str) -> Key | None:
        return self._keys.get(key_id)

    def digest(self, text: str) -> bytes:
        """What stands for a key in here."""
        return hmac.digest(self._secret, text.encode("ascii"), "sha256")

    def recall(self, digest: bytes) -> Key | None:
        """The key that was found good by this digest."""
        key_id = self._good.get(digest)
        return None if key_id is None else self._keys.get(key_id)

    def is_known_bad(self, digest: bytes) -> bool:
        return digest in self._bad

    def remember(self, digest: bytes, key_id: str) -> None:
        """A key was found good."""
        if key_id in self._keys:
            self._good[digest] = key_id

    def remember_bad(self, digest: bytes) -> None:
        """A key was found bad."""
        self._bad[digest] = None
        if len(self._bad) > BAD_KEYS_MAX:
            self._bad.popitem(last=False)


def _key_of(row: KeyRow) -> Key | None:
    try:
        role, limits = Role(row.role), msgspec.convert(row.limits, Limits)
    except (ValueError, msgspec.ValidationError):
        return None
    if not is_key_id(row.id) or not is_well_hashed(row.hash):
        return None
    principal = Principal(
        actor=KEY_ACTOR + row.id,
        role=role,
        models=frozenset(row.models),
        limits=limits,
        expires_unix_s=row.expires_s,
        credential_id=row.id,
    )
    return Key(principal, row.hash, row.fingerprint, row.revoked_s is not None)
