"""The fields of JSON objects: small, table-driven checks that find all violations at once.

Rule 1: a check gets a value, the field's name and the `Findings`; it returns what rbee uses,
        or None after it has noted what is wrong.
Rule 2: what is noted names the field, what was expected and the kind that was found, never
        the value.
Rule 3: null is the same as absent for every field that is known.
Rule 4: a `Field` holds the check and the schema of what passes it, made from the same limits:
        what a client can read in the OpenAPI document is what it is held to.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

from rbee.errors import ErrorCode, RequestError, Violation

T = TypeVar("T")

# Enough to mend a request by; a body of a MiB of wrong fields shall not come back as one.
DETAILS_MAX: Final = 64

# Names of fields that may be repeated to the client: others might be a prompt gone astray.
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}", re.ASCII)


def is_field_name(name: str) -> bool:
    """Whether it can be repeated to the client."""
    return _NAME.fullmatch(name) is not None


class Findings:
    """What is wrong with one body so far. Raise it once everything was looked at."""

    def __init__(self) -> None:
        self._violations: list[Violation] = []
        self._count = 0
        self._is_invalid = False

    def wrong(self, field: str, problem: str) -> None:
        """A field that rbee knows has a value that it does not take."""
        self._is_invalid = True
        self._note(Violation(field, problem))

    def require(
        self, value: object, taken: Mapping[str, object], *names: str, at: str = ""
    ) -> None:
        """Note which fields an object lacks: absent, or null.

        Args:
          value: the object as it came; what is none was noted already.
          taken: its fields that were right.
        """
        if isinstance(value, dict):
            for name in names:
                if name not in taken and value.get(name) is None:
                    self.wrong(join(at, name), "is required")

    def unsupported(self, field: str, problem: str = "is not supported") -> None:
        """A field, or a use of it, that rbee does not offer."""
        self._note(Violation(field, problem))

    def raise_if_any(self) -> None:
        """End the reading of a body that has violations.

        Raises:
          RequestError: as `as_error` has it.
        """
        if self._violations:
            raise self.as_error()

    def as_error(self) -> RequestError:
        """All that was found: INVALID_REQUEST or, if nothing is invalid, UNSUPPORTED_PARAMETER."""
        first = self._violations[0]
        message = f"{first.field} {first.problem}"
        if self._count > 1:
            message += f"; {self._count - 1} more"
        return RequestError(
            ErrorCode.INVALID_REQUEST if self._is_invalid else ErrorCode.UNSUPPORTED_PARAMETER,
            message,
            param=first.field,
            details=tuple(self._violations),
        )

    def _note(self, violation: Violation) -> None:
        self._count += 1
        if len(self._violations) < DETAILS_MAX:
            self._violations.append(violation)


Check: TypeAlias = Callable[[object, str, Findings], T | None]

Schema: TypeAlias = Mapping[str, object]
"""A JSON Schema of draft 2020-12, as OpenAPI 3.1 has it."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an object: how it is checked, and what the API's description says of it."""

    check: Check[Any]
    schema: Schema


Fields: TypeAlias = Mapping[str, Field]


def read_fields(
    value: object,
    fields: Fields,
    found: Findings,
    *,
    at: str = "",
    ignored: Collection[str] = (),
) -> dict[str, Any]:
    """Check each field of an object by its entry in ``fields``.

    Returns:
      The fields that were given, not null, and right.
    """
    if not isinstance(value, dict):
        found.wrong(at or "body", f"must be an object, got {kind(value)}")
        return {}
    taken: dict[str, Any] = {}
    for name, each in value.items():
        known = fields.get(name)
        if known is None:
            if name not in ignored:
                found.unsupported(join(at, name if is_field_name(name) else "(a field)"))
        elif each is not None:
            result = known.check(each, join(at, name), found)
            if result is not None:
                taken[name] = result
    return taken


def kind(value: object) -> str:
    """What a JSON value is, in JSON's words."""
    return _KINDS[type(value)]


_KINDS: Final[Mapping[type, str]] = {
    type(None): "null",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
}


def object_schema(fields: Fields, *required: str, ignored: Collection[str] = ()) -> Schema:
    """The schema of an object that `read_fields` takes. What is not required may be null."""
    properties: dict[str, Schema] = {
        name: field.schema if name in required else nullable(field.schema)
        for name, field in fields.items()
    }
    for name in sorted(ignored):
        properties[name] = {"description": "Taken and ignored."}
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def nullable(schema: Schema) -> Schema:
    """The same, or null."""
    if schema.get("type") == "null":
        return schema
    return {"anyOf": [schema, {"type": "null"}]}


def array_schema(items: Schema, lowest: int, highest: int) -> Schema:
    return {"type": "array", "items": items, "minItems": lowest, "maxItems": highest}


def text_schema(lowest: int, highest: int) -> Schema:
    return {"type": "string", "minLength": lowest, "maxLength": highest}


def integer(lowest: int, highest: int) -> Field:
    """A whole number. Neither ``true`` nor ``5.0`` is one."""

    def check(value: object, field: str, found: Findings) -> int | None:
        if isinstance(value, bool) or not isinstance(value, int):
            found.wrong(field, f"must be an integer, got {kind(value)}")
        elif not lowest <= value <= highest:
            found.wrong(field, f"must be from {lowest} to {highest}")
        else:
            return value
        return None

    return Field(check, {"type": "integer", "minimum": lowest, "maximum": highest})


def number(lowest: float, highest: float, *, above: bool = False) -> Field:
    """A finite number; with ``above`` the lowest itself is out."""

    def check(value: object, field: str, found: Findings) -> float | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            found.wrong(field, f"must be a number, got {kind(value)}")
        elif not lowest <= value <= highest or (above and value == lowest):
            low = f"above {lowest:g} and at most" if above else f"from {lowest:g} to"
            found.wrong(field, f"must be {low} {highest:g}")
        else:
            return float(value)
        return None

    low = "exclusiveMinimum" if above else "minimum"
    return Field(check, {"type": "number", low: lowest, "maximum": highest})


def boolean() -> Field:
    """``true`` or ``false``; 1 is neither."""

    def check(value: object, field: str, found: Findings) -> bool | None:
        if isinstance(value, bool):
            return value
        found.wrong(field, f"must be a boolean, got {kind(value)}")
        return None

    return Field(check, {"type": "boolean"})


def text(highest: int) -> Field:
    """A string of at most so many characters."""

    def check(value: object, field: str, found: Findings) -> str | None:
        if not isinstance(value, str):
            found.wrong(field, f"must be a string, got {kind(value)}")
        elif len(value) > highest:
            found.wrong(field, f"must have at most {highest} characters")
        else:
            return value
        return None

    return Field(check, text_schema(0, highest))


def only(*allowed: object) -> Field:
    """A parameter of which rbee takes the values alone that change nothing."""
    words = " or ".join(_spelled(each) for each in allowed)
    problem = f"is not supported, but for {words}" if allowed else "is not supported, but for null"

    def check(value: object, field: str, found: Findings) -> None:
        if not any(type(value) is type(each) and value == each for each in allowed):
            found.unsupported(field, problem)

    return Field(check, {"enum": list(allowed)} if allowed else {"type": "null"})


def _spelled(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else str(value).replace("'", '"')


def join(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name
