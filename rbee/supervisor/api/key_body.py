"""The bodies of ``/v1/rbee/keys``: bytes in, what a key is to be out. Pure."""

from typing import Final

from rbee.ids import MODEL_NAME, is_model_name
from rbee.rate_limits import CONCURRENT_MAX, PER_MINUTE_MAX, Limits, Priority
from rbee.supervisor.access.instant import UNIX_S_MAX, read_rfc_3339
from rbee.supervisor.access.minting import GRACE_S_MAX, MODELS_MAX, NAME_LETTERS_MAX, KeyOrder
from rbee.supervisor.access.principal import Role
from rbee.supervisor.api.fields import (
    Field,
    Fields,
    Findings,
    Schema,
    array_schema,
    integer,
    kind,
    object_schema,
    read_fields,
    text_schema,
)
from rbee.supervisor.api.json_text import decode_json

LIFE_S_MAX: Final = 100 * 366 * 86_400


def read_key_order(raw: bytes, now_unix_s: float) -> KeyOrder:
    """Read and check one body that asks for a key.

    Raises:
      RequestError: not JSON, or not what this route takes; names all violations.
    """
    found = Findings()
    body = decode_json(raw)
    values = read_fields(body, _ORDER, found)
    found.require(body, values, "role")
    expires_s = values.get("expires")
    if "expires_in_s" in values:
        if expires_s is not None:
            found.wrong("expires_in_s", "must not stand beside expires")
        expires_s = int(now_unix_s) + values["expires_in_s"]
    if expires_s is not None and not now_unix_s < expires_s <= UNIX_S_MAX:
        found.wrong("expires", "must be in the future")
    found.raise_if_any()
    return KeyOrder(
        role=values["role"],
        name=values.get("name", ""),
        models=values.get("models", ()),
        limits=values.get("limits", Limits()),
        expires_s=expires_s,
    )


def read_rotation(raw: bytes) -> int:
    """Read the body of a rotation; it may be empty.

    Returns:
      For how many seconds the old key stays good.

    Raises:
      RequestError: not JSON, or not what this route takes; names all violations.
    """
    if not raw:
        return 0
    found = Findings()
    values = read_fields(decode_json(raw), _ROTATION, found)
    found.raise_if_any()
    grace_s: int = values.get("grace_s", 0)
    return grace_s


def _role(value: object, field: str, found: Findings) -> Role | None:
    if isinstance(value, str) and value in set(Role):
        return Role(value)
    found.wrong(field, f"must be one of {', '.join(Role)}")
    return None


def _name(value: object, field: str, found: Findings) -> str | None:
    if not isinstance(value, str):
        found.wrong(field, f"must be a string, got {kind(value)}")
    elif len(value) > NAME_LETTERS_MAX or not value.isprintable():
        found.wrong(field, f"must have at most {NAME_LETTERS_MAX} characters, all printable")
    else:
        return value
    return None


def _models(value: object, field: str, found: Findings) -> tuple[str, ...] | None:
    if not isinstance(value, list):
        found.wrong(field, f"must be an array, got {kind(value)}")
    elif len(value) > MODELS_MAX:
        found.wrong(field, f"must have at most {MODELS_MAX} names")
    elif not all(isinstance(each, str) and is_model_name(each) for each in value):
        found.wrong(field, "must hold names of models")
    else:
        return tuple(dict.fromkeys(value))
    return None


def _time(value: object, field: str, found: Findings) -> int | None:
    unix_s = read_rfc_3339(value) if isinstance(value, str) else None
    if unix_s is None:
        found.wrong(field, "must be a time as RFC 3339 has it, with its offset")
        return None
    return int(unix_s)


def _priority(value: object, field: str, found: Findings) -> Priority | None:
    if isinstance(value, str) and value in set(Priority):
        return Priority(value)
    found.wrong(field, f"must be one of {', '.join(Priority)}")
    return None


def _limits(value: object, field: str, found: Findings) -> Limits | None:
    values = read_fields(value, _LIMITS, found, at=field)
    return Limits(**values)


_LIMITS: Final[Fields] = {
    "requests_per_minute": integer(1, PER_MINUTE_MAX),
    "tokens_per_minute": integer(1, PER_MINUTE_MAX),
    "concurrent_requests": integer(1, CONCURRENT_MAX),
    "priority": Field(_priority, {"type": "string", "enum": list(Priority)}),
}
_MODEL: Final[Schema] = {"type": "string", "pattern": f"^{MODEL_NAME.pattern}$"}
_ORDER: Final[Fields] = {
    "role": Field(_role, {"type": "string", "enum": list(Role)}),
    "name": Field(_name, text_schema(0, NAME_LETTERS_MAX)),
    "models": Field(_models, array_schema(_MODEL, 0, MODELS_MAX)),
    "expires": Field(_time, {"type": "string", "format": "date-time"}),
    "expires_in_s": integer(1, LIFE_S_MAX),
    "limits": Field(_limits, object_schema(_LIMITS)),
}
_ROTATION: Final[Fields] = {"grace_s": integer(0, GRACE_S_MAX)}

ORDER_SCHEMA: Final = object_schema(_ORDER, "role")
ROTATION_SCHEMA: Final = object_schema(_ROTATION)
