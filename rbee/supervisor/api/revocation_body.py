"""The body of ``POST /v1/rbee/revocations``. Pure."""

import re
from typing import Final

from rbee.supervisor.access.instant import UNIX_S_MAX, read_rfc_3339
from rbee.supervisor.access.principal import JTI
from rbee.supervisor.api.fields import (
    Field,
    Fields,
    Findings,
    object_schema,
    read_fields,
)
from rbee.supervisor.api.json_text import decode_json


def read_revocation(raw: bytes) -> tuple[str, int | None]:
    """Read and check one body that revokes a JWT.

    Returns:
      Its ``jti``, and when it expires by itself, if that was said.

    Raises:
      RequestError: not JSON, or not what this route takes; names all violations.
    """
    found = Findings()
    body = decode_json(raw)
    values = read_fields(body, _REVOCATION, found)
    found.require(body, values, "jti")
    found.raise_if_any()
    return values["jti"], values.get("expires")


def _jti(value: object, field: str, found: Findings) -> str | None:
    if isinstance(value, str) and re.fullmatch(JTI, value, re.ASCII):
        return value
    found.wrong(field, "must be 1 to 256 visible ASCII characters")
    return None


def _time(value: object, field: str, found: Findings) -> int | None:
    unix_s = read_rfc_3339(value) if isinstance(value, str) else None
    if unix_s is None or not 0 < unix_s <= UNIX_S_MAX:
        found.wrong(field, "must be a time as RFC 3339 has it, with its offset")
        return None
    return int(unix_s)


_REVOCATION: Final[Fields] = {
    "jti": Field(_jti, {"type": "string", "pattern": f"^{JTI}$"}),
    "expires": Field(_time, {"type": "string", "format": "date-time"}),
}

REVOCATION_SCHEMA: Final = object_schema(_REVOCATION, "jti")
