"""The issuer's public keys, as a JSON Web Key Set (RFC 7517). Pure.

Rule 1: the type of a key says the one algorithm that it is used with, whatever a JWT says.
Rule 2: a set that has one id twice, or a private key, is refused as a whole: somebody has made a
        mistake, and a guess would be ours. Keys that are of no use here are left out, and counted.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from rbee.jwt_config import Algorithm
from rbee.supervisor.access.jwt.form import KID_LETTERS_MAX

SET_BYTES_MAX: Final = 256 * 1024
KEYS_MAX: Final = 100

# Below, RSA is weak (NIST SP 800-131A). Above, a verification takes more than 0.1 ms.
RSA_BITS_MIN: Final = 2048
RSA_BITS_MAX: Final = 4096

_PRIVATE: Final = ("d", "p", "q", "dp", "dq", "qi", "oth")
_COORDINATE_BYTES: Final = 32  # of P-256 and Ed25519

Number = Annotated[str, Meta(max_length=1024)]


class KeySetError(Exception):
    """This is no set of keys that could be used. The message names what is wrong."""


class Jwk(msgspec.Struct, frozen=True):
    """One public key, as JSON has it. Members that say nothing to us are left out."""

    kty: str
    kid: Annotated[str, Meta(min_length=1, max_length=KID_LETTERS_MAX)] | None = None
    use: str | None = None
    key_ops: tuple[str, ...] | None = None
    alg: str | None = None
    crv: str | None = None
    n: Number | None = None
    e: Number | None = None
    x: Number | None = None
    y: Number | None = None


@dataclass(frozen=True, slots=True)
class KeySet:
    """Keys by their id, each with its one algorithm."""

    keys: Mapping[str, tuple[Algorithm, Jwk]]
    left_out: int  # keys that are of no use here


def parse_key_set(raw: bytes, algorithms: tuple[Algorithm, ...]) -> KeySet:
    """Read a JSON Web Key Set.

    Raises:
      KeySetError: it is none, it is not safe to use, or it has no key for these algorithms.
    """
    listed = _members(raw)
    keys: dict[str, tuple[Algorithm, Jwk]] = {}
    for index, member in enumerate(listed):
        if not isinstance(member, dict):
            raise KeySetError(f"keys[{index}] must be an object")
        if any(name in member for name in _PRIVATE):
            raise KeySetError(f"keys[{index}] holds a private key: it is no secret any more")
        try:
            key = msgspec.convert(member, Jwk)
        except (msgspec.ValidationError, UnicodeEncodeError):
            continue
        algorithm = _algorithm(key)
        if key.kid is None or algorithm is None or algorithm not in algorithms:
            continue
        if key.kid in keys:
            raise KeySetError(f"keys[{index}] has the kid of a key before it")
        keys[key.kid] = algorithm, key
    if not keys:
        names = ", ".join(algorithms)
        raise KeySetError(f"none of {len(listed)} keys has a kid and is good for {names}")
    return KeySet(keys, len(listed) - len(keys))


def _members(raw: bytes) -> list[object]:
    if len(raw) > SET_BYTES_MAX:
        raise KeySetError(f"it must be at most {SET_BYTES_MAX} bytes")
    try:
        document = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise KeySetError("it must be JSON in UTF-8") from error
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise KeySetError('it must be an object with a list "keys"')
    if len(listed) > KEYS_MAX:
        raise KeySetError(f"it must hold at most {KEYS_MAX} keys, found {len(listed)}")
    return listed


def _algorithm(key: Jwk) -> Algorithm | None:
    """The one algorithm that a key is for; None: none of ours."""
    if key.use not in {None, "sig"} or (key.key_ops is not None and "verify" not in key.key_ops):
        return None
    algorithm: Algorithm | None = None
    match key.kty, key.crv:
        case "RSA", _ if _is_sound_rsa(key):
            algorithm = "RS256"
        case "EC", "P-256" if _has_bytes(key.x) and _has_bytes(key.y):
            algorithm = "ES256"
        case "OKP", "Ed25519" if _has_bytes(key.x):
            algorithm = "EdDSA"
    return algorithm if key.alg in {None, algorithm} else None


def _is_sound_rsa(key: Jwk) -> bool:
    modulus, exponent = _decode(key.n), _decode(key.e)
    bits = int.from_bytes(modulus).bit_length()
    # An exponent of more than 32 bits makes each verification slow, and gains nothing.
    is_sound_exponent = 0 < len(exponent) <= 4 and int.from_bytes(exponent) >= 3
    return RSA_BITS_MIN <= bits <= RSA_BITS_MAX and is_sound_exponent and exponent[-1] % 2 == 1


def _has_bytes(number: str | None) -> bool:
    return len(_decode(number)) == _COORDINATE_BYTES


def _decode(number: str | None) -> bytes:
    text = number or ""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return b""
