"""The form of an API key: ``rbee_<id>_<secret><checksum>``.

Rule 1: the id is public, and names the key in logs and listings. The secret has 256 bits, and
        is shown once.
Rule 2: the checksum finds a key that was mistyped or cut off without any work. It protects
        nothing: whoever reads this can compute it.
Rule 3: letters and digits only, so that a double click takes all of it, and nothing need be
        escaped anywhere.
"""

import hashlib
import re
import secrets
import zlib
from dataclasses import dataclass, field
from typing import Final

PREFIX: Final = "rbee_"
ID_LETTERS: Final = 8
FINGERPRINT_DIGITS: Final = 6

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_BITS: Final = 256
_SECRET_LETTERS: Final = 43  # 62 ** 43 > 2 ** 256
_CHECKSUM_LETTERS: Final = 6  # 62 ** 6 > 2 ** 32
_FORM: Final = re.compile(
    rf"{PREFIX}([0-9A-Za-z]{{{ID_LETTERS}}})_[0-9A-Za-z]{{{_SECRET_LETTERS + _CHECKSUM_LETTERS}}}",
    re.ASCII,
)
KEY_ID: Final = re.compile(rf"[0-9A-Za-z]{{{ID_LETTERS}}}", re.ASCII)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made: its id, and the text that its bearer needs."""

    id: str
    text: str = field(repr=False)


def new_key() -> NewKey:
    """A key that nobody has."""
    key_id = "".join(secrets.choice(_ALPHABET) for _ in range(ID_LETTERS))
    body = f"{PREFIX}{key_id}_{_spell(secrets.randbits(_SECRET_BITS), _SECRET_LETTERS)}"
    return NewKey(key_id, body + _checksum(body))


def id_of(text: str) -> str | None:
    """The id in a key. None: it is none, by its form or its checksum."""
    match = _FORM.fullmatch(text)
    if match is None or not text.endswith(_checksum(text[:-_CHECKSUM_LETTERS])):
        return None
    return match[1]


def is_key_id(text: str) -> bool:
    return KEY_ID.fullmatch(text) is not None


def fingerprint(text: str) -> str:
    """What logs show of a credential: the first hex digits of its SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:FINGERPRINT_DIGITS]


def _checksum(body: str) -> str:
    return _spell(zlib.crc32(body.encode("ascii")), _CHECKSUM_LETTERS)


def _spell(number: int, letters: int) -> str:
    spelled = ""
    for _ in range(letters):
        number, digit = divmod(number, len(_ALPHABET))
        spelled = _ALPHABET[digit] + spelled
    return spelled
