"""The form of a JWT: three parts in base64url, and a header that asks for nothing. Pure.

Rule 1: what is not exactly of this form is refused before any key is looked at.
Rule 2: a header may hold ``alg``, ``kid`` and ``typ``. Whatever else one may hold (``jku``,
        ``x5u``, ``x5c``, ``jwk``, ``crit``, ``b64``, ``zip``) asks the one who verifies to do
        something.
"""

import base64
import binascii
import enum
import json
import re
from dataclasses import dataclass
from typing import Any, Final, Never

JWT_LETTERS_MAX: Final = 8192
KID_LETTERS_MAX: Final = 256

_FORM: Final = re.compile(r"([A-Za-z0-9_-]{1,2048})\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{1,1024})")
_HEADER_MEMBERS: Final = frozenset({"alg", "kid", "typ"})

# RFC 7519, 5.1, and RFC 9068, 2.1. Other types are JWTs for other ends (RFC 8725, 3.11).
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})


class Reason(enum.StrEnum):
    """Why a JWT is refused, in one word of the audit log."""

    MALFORMED = "malformed"
    UNKNOWN = "unknown"  # no key of that id
    WRONG = "wrong"  # the signature, or the algorithm
    CLAIMS = "claims"  # another issuer or audience, a claim that is missing, no role
    NOT_YET_VALID = "not_yet_valid"
    EXPIRED = "expired"
    REVOKED = "revoked"


class JwtRefusedError(Exception):
    """A JWT is not taken.

    Args:
      problem: for the author of the client; never a piece of it.
    """

    def __init__(self, reason: Reason, problem: str) -> None:
        super().__init__(problem)
        self.reason = reason
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Header:
    """What a JWT says of itself. Nobody has vouched for it yet."""

    algorithm: str
    key_id: str


def read_header(text: str) -> Header:
    """The header of a JWT.

    Raises:
      JwtRefusedError: MALFORMED.
    """
    match = _FORM.fullmatch(text) if len(text) <= JWT_LETTERS_MAX else None
    if match is None:
        _refuse(f"the JWT must be three parts in base64url, of {JWT_LETTERS_MAX} letters at most")
    header = decode_object(_decode_part(match[1]))
    if not header.keys() <= _HEADER_MEMBERS:
        _refuse("the JWT's header may hold alg, kid and typ, and nothing else")
    algorithm, key_id, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if not isinstance(algorithm, str):
        _refuse("the JWT's header must name its alg")
    if not isinstance(key_id, str) or not 1 <= len(key_id) <= KID_LETTERS_MAX:
        _refuse(f"the JWT's header must name its key in kid, in {KID_LETTERS_MAX} letters")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        _refuse("the JWT's typ must be JWT or at+jwt")
    return Header(algorithm, key_id)


def decode_object(raw: bytes) -> dict[str, Any]:
    """Read a JSON object as RFC 7515 wants it: UTF-8, and no member twice.

    Raises:
      JwtRefusedError: MALFORMED.
    """
    try:
        value = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except (ValueError, RecursionError):
        _refuse("the JWT must hold JSON, with no member twice")
    if not isinstance(value, dict):
        _refuse("the JWT must hold JSON objects")
    return value


def _decode_part(part: str) -> bytes:
    try:
        return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        _refuse("the JWT must be base64url")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member stands twice")
    return members


def _no_constant(_name: str) -> Never:
    raise ValueError("NaN and Infinity are no JSON")


def _refuse(problem: str) -> Never:
    raise JwtRefusedError(Reason.MALFORMED, problem)
