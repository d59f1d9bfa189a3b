"""Operators, methods and filters of a chat template whose results can outgrow their arguments.

Rule 1: each works out how large its result will be, and refuses before it makes it.
"""
# ruff: noqa: ANN401 - a template's values are of any type

import json
import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from jinja2 import Environment, pass_environment
from jinja2.filters import do_indent, do_sort
from markupsafe import escape

TEXT_CHARACTERS_MAX: Final = 4 * 1024 * 1024
PARTS_MAX: Final = 200_000
POWER_BITS_MAX: Final = 16_384
INDENT_MAX: Final = 16

# A width or precision of three digits or more, or one that is an argument.
_WIDE_FIELD: Final = re.compile(r"%[^A-Za-z%]*(?:\*|[0-9]{3})")
_FIELD_CHARACTERS_MAX: Final = 512  # of one number in a field that is not wide: "%.99f" of 1e308

_SIZED: Final = (str, list, tuple)


class OverLimitError(Exception):
    """The template asked for more than there may be."""


def binary(operator: str, left: Any, right: Any) -> Any:
    """``left operator right``."""
    match operator:
        case "+":
            if isinstance(left, _SIZED) and isinstance(right, _SIZED):
                _bound(len(left) + len(right))
            return left + right
        case "*":
            return _times(left, right)
        case "**":
            if isinstance(left, int) and isinstance(right, int):
                _bound(left.bit_length() * abs(right), POWER_BITS_MAX)
            return left**right
        case "%":
            return _format(left, right) if isinstance(left, str) else left % right
    raise AssertionError(operator)


def _times(left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int):
        _bound(left.bit_length() + right.bit_length(), POWER_BITS_MAX)
    for value, count in ((left, right), (right, left)):
        if isinstance(value, _SIZED) and isinstance(count, int):
            _bound(len(value) * count)
    return left * right


def _format(pattern: str, values: Any) -> str:
    if _WIDE_FIELD.search(pattern):
        raise OverLimitError("a field of a hundred characters or more")
    longest = _FIELD_CHARACTERS_MAX + len(str(values))
    _bound(len(pattern) + pattern.count("%") * longest)
    return str(pattern % values)


def _replace(text: str, old: str, new: str, count: int = -1) -> str:
    found = text.count(old)
    times = found if count < 0 else min(found, count)
    _bound(len(text) + times * (len(new) - len(old)))
    return text.replace(old, new, count)


def _join(separator: str, parts: Iterable[str]) -> str:
    texts = parts if isinstance(parts, list) else list(parts)
    _bound(sum(map(len, texts)) + len(separator) * len(texts))
    return separator.join(texts)


def _split(text: str, sep: str | None = None, maxsplit: int = -1) -> list[str]:
    limit = maxsplit if 0 <= maxsplit < PARTS_MAX else PARTS_MAX
    return _few(text.split(sep, limit))


def _rsplit(text: str, sep: str | None = None, maxsplit: int = -1) -> list[str]:
    limit = maxsplit if 0 <= maxsplit < PARTS_MAX else PARTS_MAX
    return _few(text.rsplit(sep, limit))


BOUNDED_METHODS: Final[dict[str, Callable[..., Any]]] = {
    "replace": _replace,
    "join": _join,
    "split": _split,
    "rsplit": _rsplit,
}


@pass_environment
def _join_filter(
    environment: Environment, value: Iterable[Any], d: str = "", attribute: str | int | None = None
) -> str:
    # With an empty separator and None jinja2 only turns what it finds into texts.
    if attribute is not None:
        value = [environment.getitem(each, attribute) for each in value]
    return _join(str(d), [each if isinstance(each, str) else str(each) for each in value])


def _indent(text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    size = len(width) if isinstance(width, str) else width
    _bound(len(text) + (text.count("\n") + 1) * size)
    return str(do_indent(text, width, first, blank))


def _items(value: Any) -> list[Any]:
    if isinstance(value, str):
        _bound(len(value), PARTS_MAX)
    return list(value)


@pass_environment
def _sort(environment: Environment, value: Any, *args: Any, **kwargs: Any) -> list[Any]:
    return do_sort(environment, _items(value), *args, **kwargs)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As Hugging Face's templates expect it: not made safe for HTML, unlike jinja2's own."""
    if indent is not None and not 0 <= indent <= INDENT_MAX:
        raise OverLimitError(f"an indent of more than {INDENT_MAX}")
    encoder = json.JSONEncoder(
        ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    parts: list[str] = []
    size = 0
    for part in encoder.iterencode(value):
        size += len(part)
        _bound(size)
        parts.append(part)
    return "".join(parts)


BOUNDED_FILTERS: Final[dict[str, Callable[..., Any]]] = {
    "e": lambda value: str(escape(value)),
    "escape": lambda value: str(escape(value)),
    "format": lambda pattern, *values: _format(str(pattern), values),
    "indent": _indent,
    "join": _join_filter,
    "list": _items,
    "replace": lambda text, old, new, count=None: _replace(
        str(text), old, new, -1 if count is None else count
    ),
    "safe": str,  # nothing is escaped, so that nothing needs to be marked
    "sort": _sort,
    "tojson": _tojson,
}


def _bound(size: int, size_max: int = TEXT_CHARACTERS_MAX) -> None:
    if size > size_max:
        raise OverLimitError(f"a value of size {size}, at most {size_max} may be")


def _few(parts: list[str]) -> list[str]:
    if len(parts) > PARTS_MAX:
        raise OverLimitError(f"a text in more than {PARTS_MAX} parts")
    return parts
