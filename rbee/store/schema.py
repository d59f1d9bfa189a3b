"""The tables, and how a store of an earlier version becomes one of this version.

Rule: a step, once released, is never changed. What is new is a further step.
"""

from typing import Final

# The application id of the file (``file rbee.db`` shows it): "rbee" in ASCII.
APPLICATION_ID: Final = 0x72626565

STEPS: Final[tuple[tuple[str, ...], ...]] = (
    (
        """
        CREATE TABLE keys (
            id TEXT PRIMARY KEY,
            hash TEXT NOT NULL,
            fingerprint TEXT NOT NULL,
            name TEXT NOT NULL,
            role TEXT NOT NULL,
            models TEXT NOT NULL,
            limits TEXT NOT NULL,
            created_s INTEGER NOT NULL,
            expires_s INTEGER,
            revoked_s INTEGER,
            revoked_for TEXT NOT NULL DEFAULT ''
        ) STRICT
        """,
        """
        CREATE TABLE revocations (
            issuer TEXT NOT NULL,
            jti TEXT NOT NULL,
            expires_s INTEGER NOT NULL,
            PRIMARY KEY (issuer, jti)
        ) STRICT, WITHOUT ROWID
        """,
        """
        CREATE TABLE anchors (
            name TEXT PRIMARY KEY,
            seq INTEGER NOT NULL,
            hash TEXT NOT NULL,
            first_seq INTEGER NOT NULL,
            seal TEXT
        ) STRICT, WITHOUT ROWID
        """,
        """
        CREATE TABLE facts (
            name TEXT PRIMARY KEY,
            value TEXT NOT NULL
        ) STRICT, WITHOUT ROWID
        """,
    ),
)
"""Each step brings a store from the version of its index to the next."""

VERSION: Final = len(STEPS)
