"""A store for a test, and what may be kept in it."""

from pathlib import Path

from rbee.store import KeyRow, Store, open_store


def row(key_id: str = "aaaaaaaa", **more: object) -> KeyRow:
    given: dict[str, object] = {
        "id": key_id, "hash": "$argon2id$…", "fingerprint": "0a1b2c", "name": "a name",
        "role": "user", "models": ("one", "org/two"), "limits": {"requests_per_minute": 3},
        "created_s": 1_000,
    }  # fmt: skip
    return KeyRow(**{**given, **more})  # type: ignore[arg-type]


def opened(path: Path) -> Store:
    store = open_store(path)
    assert store is not None
    return store
