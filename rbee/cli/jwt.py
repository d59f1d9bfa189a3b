"""``rbee jwt``: JWTs revoked in the store, whether a server runs or not."""

import contextlib
import json as json_text
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from rbee.cli.address import state_dir_of
from rbee.cli.command_records import Records, records_of
from rbee.cli.endings import UsageError
from rbee.cli.terminal import columns, put

if TYPE_CHECKING:
    from rbee.jwt_config import JwtConfig
    from rbee.store import RevokedToken, Store

Config = Annotated[Path | None, Parameter(help="The configuration; else ./rbee.toml.")]


def revoke(jti: str, /, *, expires: str | None = None, config: Config = None) -> int:
    """Revoke a JWT. A server that runs refuses it within a second, and ends what runs for it.

    Args:
      jti: Its id, the claim "jti"; answers of /v1/rbee/revocations and the audit log show it.
      expires: When it expires, such as 2027-01-31T00:00:00Z, if you know; else the revocation is
        kept for as long as any JWT may live.
    """
    from rbee.audit.events import JwtRevoked
    from rbee.store import RevokedToken
    from rbee.supervisor.access.instant import read_rfc_3339, rfc_3339
    from rbee.supervisor.access.principal import JTI
    from rbee.supervisor.access.retention import kept_until_s

    if not re.fullmatch(JTI, jti, re.ASCII):
        raise UsageError("JTI must be 1 to 256 visible ASCII characters")
    expires_s = None if expires is None else read_rfc_3339(expires)
    if expires is not None and expires_s is None:
        raise UsageError("--expires must be a time such as 2027-01-31T00:00:00Z")
    now_s = int(time.time())
    with _opened(config) as (store, jwt, records):
        until_s = kept_until_s(jwt, now_s, expires_s)
        token = RevokedToken(issuer=jwt.issuer, jti=jti, expires_s=until_s)
        if until_s <= now_s:
            put(f"{jti}: has expired by itself")
            return 0
        if _is_known(store, token, now_s):
            put(f"{jti}: was revoked before")
            return 0
        deed = JwtRevoked(issuer=jwt.issuer, jti=jti, expires=rfc_3339(until_s))
        records.do([deed], lambda: store.revocations.add(token, now_s))
    put(f"{jti}: revoked; kept until {rfc_3339(until_s)}")
    return 0


def list_revoked(*, config: Config = None, json: bool = False) -> int:
    """Show the JWTs that were revoked and have not expired.

    Args:
      json: Print JSON, for programs.
    """
    from rbee.supervisor.access.instant import rfc_3339

    with _opened(config) as (store, jwt, _):
        rows = [row for row in store.revocations.all(int(time.time())) if row.issuer == jwt.issuer]
    rows.sort(key=lambda row: (row.expires_s, row.jti))
    shown = [(row.jti, rfc_3339(row.expires_s)) for row in rows]
    if json:
        put(json_text.dumps({"revocations": [{"jti": j, "expires": e} for j, e in shown]}))
        return 0
    put(columns([("JTI", "EXPIRES"), *shown]) if shown else "no JWT is revoked")
    return 0


@contextlib.contextmanager
def _opened(path: Path | None) -> "Iterator[tuple[Store, JwtConfig, Records]]":
    from rbee.cli.effective_config import configuration
    from rbee.errors import ConfigError
    from rbee.store import FILE_NAME, open_store

    config = configuration(path)
    if not config.jwt.issuer:
        raise ConfigError("jwt.issuer is not set: a server with this configuration takes no JWTs")
    state_dir = state_dir_of(config)
    store = open_store(state_dir / FILE_NAME)
    assert store is not None
    with store, records_of(config.audit, state_dir) as records:
        yield store, config.jwt, records


def _is_known(store: "Store", token: "RevokedToken", now_s: int) -> bool:
    """Whether it was revoked before, for as long."""
    return any(
        (row.issuer, row.jti) == (token.issuer, token.jti) and row.expires_s >= token.expires_s
        for row in store.revocations.all(now_s)
    )
