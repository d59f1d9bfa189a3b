"""Checks of the fields of a JSON object: small, table-driven, all violations at once.

Rule 1: a check gets a value, the field's name and the `Findings`; it returns what rbee uses,
        or None after it has noted what is wrong.
Rule 2: what is noted names the field, what was expected and the kind that was found, never
        the value.
Rule 3: null is the same as absent for every field that is known.
"""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, TypeAlias, TypeVar

from rbee.errors import ErrorCode, RequestError, Violation

T = TypeVar("T")

# Enough to mend a request by; a body of a MiB of wrong fields shall not come back as one.
DETAILS_MAX: Final = 64

# Names of fields that may be repeated to the client: others might be a prompt gone astray.
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}", re.ASCII)


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
          RequestError: INVALID_REQUEST or, if nothing else is wrong, UNSUPPORTED_PARAMETER.
        """
        if not self._violations:
            return
        first = self._violations[0]
        message = f"{first.field} {first.problem}"
        if self._count > 1:
            message += f"; {self._count - 1} more"
        raise RequestError(
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


def read_fields(
    value: object,
    checks: Mapping[str, Check[Any]],
    found: Findings,
    *,
    at: str = "",
    ignored: Collection[str] = (),
) -> dict[str, Any]:
    """Check each field of an object by its entry in ``checks``.

    Returns:
      The fields that were given, not null, and right.
    """
    if not isinstance(value, dict):
        found.wrong(at or "body", f"must be an object, got {kind(value)}")
        return {}
    taken: dict[str, Any] = {}
    for name, each in value.items():
        check = checks.get(name)
        if check is None:
            if name not in ignored:
                found.unsupported(join(at, name if _NAME.fullmatch(name) else "(a field)"))
        elif each is not None:
            result = check(each, join(at, name), found)
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


def integer(lowest: int, highest: int) -> Check[int]:
    """A whole number. Neither ``true`` nor ``5.0`` is one."""

    def check(value: object, field: str, found: Findings) -> int | None:
        if isinstance(value, bool) or not isinstance(value, int):
            found.wrong(field, f"must be an integer, got {kind(value)}")
        elif not lowest <= value <= highest:
            found.wrong(field, f"must be from {lowest} to {highest}")
        else:
            return value
        return None

    return check


def number(lowest: float, highest: float, *, above: bool = False) -> Check[float]:
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

    return check


def boolean(value: object, field: str, found: Findings) -> bool | None:
    if isinstance(value, bool):
        return value
    found.wrong(field, f"must be a boolean, got {kind(value)}")
    return None


def text(value: object, field: str, found: Findings) -> str | None:
    if isinstance(value, str):
        return value
    found.wrong(field, f"must be a string, got {kind(value)}")
    return None


def only(*allowed: object) -> Check[object]:
    """A parameter of which rbee takes the values alone that change nothing."""
    words = " or ".join(_spelled(each) for each in allowed)
    problem = f"is not supported, but for {words}" if allowed else "is not supported, but for null"

    def check(value: object, field: str, found: Findings) -> None:
        if not any(type(value) is type(each) and value == each for each in allowed):
            found.unsupported(field, problem)

    return check


def anything(value: object, _field: str, _found: Findings) -> object:
    """A field that is not looked at."""
    return value


def _spelled(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else str(value).replace("'", '"')


def join(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name
