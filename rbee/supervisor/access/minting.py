"""Makes keys: what goes into the store, and what its bearer gets. Takes about 30 ms for a hash."""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from rbee.audit.events import KeyCreated, KeyRevoked
from rbee.rate_limits import NO_LIMITS, Limits
from rbee.store import KeyRow
from rbee.supervisor.access.api_key import NewKey, fingerprint, new_key
from rbee.supervisor.access.hashing import hash_key
from rbee.supervisor.access.instant import rfc_3339
from rbee.supervisor.access.principal import Role

NAME_LETTERS_MAX: Final = 128
MODELS_MAX: Final = 64
REASON_LETTERS_MAX: Final = 128

# For how long a key that was rotated may stay good.
GRACE_S_MAX: Final = 30 * 86_400


class KeyOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What a key is to be."""

    role: Role
    name: Annotated[str, Meta(max_length=NAME_LETTERS_MAX)] = ""
    models: tuple[str, ...] = ()  # empty: all
    limits: Limits = NO_LIMITS
    expires_s: int | None = None  # Unix time


def mint(order: KeyOrder, now_s: int) -> tuple[NewKey, KeyRow]:
    """Make a key."""
    key = new_key()
    row = KeyRow(
        id=key.id,
        hash=hash_key(key.text),
        fingerprint=fingerprint(key.text),
        name=order.name,
        role=order.role.value,
        models=order.models,
        limits=msgspec.to_builtins(order.limits),
        created_s=now_s,
        expires_s=order.expires_s,
    )
    return key, row


def mint_successor(row: KeyRow, now_s: int) -> tuple[NewKey, KeyRow]:
    """Make a key that may do what another may, and expires when it does."""
    key = new_key()
    successor = msgspec.structs.replace(
        row, id=key.id, hash=hash_key(key.text), fingerprint=fingerprint(key.text),
        created_s=now_s, revoked_for="",
    )  # fmt: skip
    return key, successor


def created(row: KeyRow) -> KeyCreated:
    """What the audit log hears of a new key."""
    return KeyCreated(
        key=row.id,
        fingerprint=row.fingerprint,
        role=row.role,
        models=row.models,
        expires=None if row.expires_s is None else rfc_3339(row.expires_s),
    )


def revoked(row: KeyRow, reason: str) -> KeyRevoked:
    """What the audit log hears of a key that was revoked."""
    return KeyRevoked(key=row.id, fingerprint=row.fingerprint, reason=reason)


def rotated(old: KeyRow, new_id: str, grace_s: int) -> KeyRevoked:
    """What the audit log hears of a key that another takes the place of."""
    return revoked(old, f"rotated to {new_id}; good for {grace_s} s more")


def is_good(row: KeyRow, now_s: int) -> bool:
    """Whether a key is neither revoked nor expired."""
    return row.revoked_s is None and (row.expires_s is None or row.expires_s > now_s)


def shown(row: KeyRow) -> dict[str, object]:
    """A key as listings show it: all but its hash."""
    return {
        "id": row.id,
        "object": "key",
        "name": row.name,
        "fingerprint": row.fingerprint,
        "role": row.role,
        "models": row.models or None,
        "limits": row.limits,
        "created": rfc_3339(row.created_s),
        "expires": None if row.expires_s is None else rfc_3339(row.expires_s),
        "revoked": None if row.revoked_s is None else rfc_3339(row.revoked_s),
        "revoked_for": row.revoked_for or None,
    }
