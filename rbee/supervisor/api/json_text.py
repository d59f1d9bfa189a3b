"""JSON as it comes from outside: strict, bounded, and never a surprise.

Rule: any bytes whatever give a JSON value or a `RequestError`.

Refused, where the usual decoders are lenient or fall over: duplicate keys (the last would win
in silence), NaN and Infinity, nesting without end, numbers out of range, lone surrogates,
byte order marks and encodings other than UTF-8.
"""

import re
from typing import Any, Final

import msgspec

from rbee.errors import ErrorCode, RequestError

# Objects and arrays within each other. A JSON Schema of 32 levels fits.
DEPTH_MAX: Final = 64

# Objects and arrays in all. The decoder makes them in one go that nothing can interrupt: 345,000
# empty arrays in a body of 1 MiB stopped the whole process for 190 ms.
CONTAINERS_MAX: Final = 20_000

# One string of a JSON text, and what makes it a key. In a text that is valid JSON a string
# before a colon is a key and nothing else is.
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"([ \t\r\n]*+:)?', re.DOTALL)

_CONTAINERS: Final = frozenset({dict, list})

_decoder: Final[msgspec.json.Decoder[object]] = msgspec.json.Decoder(object)


def decode_json(raw: bytes) -> object:
    """Read one JSON text.

    Raises:
      RequestError: INVALID_JSON; says what is wrong, never with a piece of the text.
    """
    if not raw:
        raise _invalid("the body is empty; expected a JSON object")
    if _count_containers(raw) > CONTAINERS_MAX:
        raise _invalid(f"the body holds more than {CONTAINERS_MAX} objects and arrays")
    try:
        value = _decoder.decode(raw)
    except UnicodeDecodeError:
        raise _invalid(_not_utf_8(raw)) from None
    except RecursionError:
        raise _invalid(f"the body is nested deeper than {DEPTH_MAX} levels") from None
    except msgspec.ValidationError:
        raise _invalid("the body holds a number that is out of range") from None
    except msgspec.DecodeError as error:
        raise _invalid(_in_our_words(str(error))) from None
    # Not `findall`, which lets no other thread run until it is done.
    if sum(1 for each in _STRING.finditer(raw) if each.lastindex) != _count_keys(value):
        raise _invalid("an object in the body has the same key twice")
    return value


def _count_containers(raw: bytes) -> int:
    """How many objects and arrays begin in a text, at most: exact where it is many."""
    count = raw.count(b"[") + raw.count(b"{")
    if count <= CONTAINERS_MAX:
        return count
    outside = _STRING.sub(b"", raw)
    return outside.count(b"[") + outside.count(b"{")


def _not_utf_8(raw: bytes) -> str:
    """Where it is not: the JSON decoder counts from the beginning of the string that it is in."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return f"the body is not UTF-8 at byte {error.start}"
    return "the body is not UTF-8"


def _in_our_words(problem: str) -> str:
    """The decoder's message, of which the byte's number alone is worth telling."""
    place = re.search(r"\(byte (\d+)\)", problem)
    return f"the body is not JSON at byte {place[1]}" if place else "the body is not complete JSON"


def _count_keys(value: object) -> int:
    """How many keys the objects in ``value`` have in all, after duplicates were dropped."""
    keys = 0
    level: list[Any] = [value] if type(value) in _CONTAINERS else []
    for _ in range(DEPTH_MAX):
        if not level:
            return keys
        below: list[Any] = []
        for each in level:
            if type(each) is dict:
                keys += len(each)
                below += [inner for inner in each.values() if type(inner) in _CONTAINERS]
            elif each:
                below += [inner for inner in each if type(inner) in _CONTAINERS]
        level = below
    if not level:
        return keys
    raise _invalid(f"the body is nested deeper than {DEPTH_MAX} levels")


def _invalid(message: str) -> RequestError:
    return RequestError(ErrorCode.INVALID_JSON, message)
