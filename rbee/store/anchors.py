"""The table of anchors: where the chain of the audit log ended when it was last made safe."""

import msgspec

from rbee.store.database import Database


class AuditHead(msgspec.Struct, frozen=True, kw_only=True):
    """The head of a chain, and the first entry that is kept; see `rbee.audit.anchor`."""

    seq: int
    hash: str
    first_seq: int
    seal: str | None = None


class Anchors:
    """Reads and writes the table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, name: str) -> AuditHead | None:
        """The anchor of that name, if there is one.

        Raises:
          StoreError: it cannot be read now.
        """
        rows = self._database.rows(
            "SELECT seq, hash, first_seq, seal FROM anchors WHERE name = ?", (name,)
        )
        if not rows:
            return None
        seq, digest, first_seq, seal = rows[0]
        return AuditHead(seq=seq, hash=digest, first_seq=first_seq, seal=seal)

    def put(self, name: str, head: AuditHead) -> None:
        """Set the anchor of that name, unless it is that of a later entry.

        Raises:
          StoreError: it could not be written.
        """
        with self._database.writing() as connection:
            connection.execute(
                "INSERT INTO anchors VALUES (?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET"
                " seq = excluded.seq, hash = excluded.hash, first_seq = excluded.first_seq,"
                " seal = excluded.seal WHERE excluded.seq >= seq",
                (name, head.seq, head.hash, head.first_seq, head.seal),
            )
