"""The table of JWTs that were revoked, by issuer and ``jti``, until they expire by themselves."""

from typing import Final

import msgspec

from rbee.errors import StoreError
from rbee.store.database import Database

# A supervisor holds all of them in memory.
REVOCATIONS_MAX: Final = 100_000


class RevokedToken(msgspec.Struct, frozen=True, kw_only=True):
    """One JWT that is not to be taken any more."""

    issuer: str
    jti: str
    expires_s: int  # Unix time from which on it is refused by its own ``exp``, and forgotten here


class Revocations:
    """Reads and writes the table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self, now_s: int) -> list[RevokedToken]:
        """Those that have not expired.

        Raises:
          StoreError: they cannot be read now.
        """
        rows = self._database.rows(
            "SELECT issuer, jti, expires_s FROM revocations WHERE expires_s > ?", (now_s,)
        )
        return [
            RevokedToken(issuer=issuer, jti=jti, expires_s=expires_s)
            for issuer, jti, expires_s in rows
        ]

    def add(self, token: RevokedToken, now_s: int) -> None:
        """Revoke a token, or for longer one that is revoked; forget those that have expired.

        Raises:
          StoreError: it could not be written, or there are `REVOCATIONS_MAX`.
        """
        with self._database.writing() as connection:
            connection.execute("DELETE FROM revocations WHERE expires_s <= ?", (now_s,))
            count = connection.execute("SELECT count(*) FROM revocations").fetchone()[0]
            if count >= REVOCATIONS_MAX:
                raise StoreError(f"{REVOCATIONS_MAX} tokens are revoked, as many as may be")
            connection.execute(
                "INSERT INTO revocations VALUES (?, ?, ?)"
                " ON CONFLICT DO UPDATE SET expires_s = max(expires_s, excluded.expires_s)",
                (token.issuer, token.jti, token.expires_s),
            )
