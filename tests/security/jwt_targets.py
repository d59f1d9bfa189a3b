"""The fuzzer's targets that read what an issuer, or a forger, has made: JWTs and sets of keys."""

import json
from typing import Final

from rbee.supervisor.access.jwt.bearers import Bearers
from rbee.supervisor.access.jwt.form import JwtRefusedError, read_header
from rbee.supervisor.access.jwt.key_set import KeySetError, parse_key_set
from rbee.supervisor.access.jwt.revoked import RevokedJwts
from rbee.supervisor.access.jwt.signatures import VerifyingKeys
from tests.access.jwt.issuer import KEYS, NOW_S, claims, config, key_set, part, sign
from tests.security.target import JSON_WORDS, Target, words

CONFIG: Final = config(models_claim="/rbee/models")
VERIFYING: Final = VerifyingKeys(parse_key_set(key_set(), CONFIG.algorithms))
CLAIMS: Final = claims(NOW_S, rbee={"models": ["one"]}, aud=["rbee", "else"])


def _verify(text: str) -> None:
    revoked = RevokedJwts(is_shared=False, may_be_blind=False, unix_clock=lambda: NOW_S)
    revoked.replace_own({})
    Bearers(CONFIG, revoked, lambda: NOW_S).verify(text, read_header(text), VERIFYING)


def _jwt(data: bytes) -> None:
    _verify(data.decode("latin-1"))


def _claims(data: bytes) -> None:
    """What a signed JWT may hold, whatever its issuer has put into it."""
    _verify(sign(data[:4096], "EdDSA"))


def _key_set(data: bytes) -> None:
    VerifyingKeys(parse_key_set(data, CONFIG.algorithms))


JWT_TARGETS: Final = (
    Target(
        "jwt", _jwt, [sign(CLAIMS, algorithm).encode() for algorithm in KEYS],
        [b".", b"=", part({"alg": "none", "kid": "RS256"}).encode(), part({}).encode()],
        (JwtRefusedError,),
    ),
    Target(
        "jwt-claims", _claims, [json.dumps(CLAIMS).encode()],
        [*JSON_WORDS, *words('"exp":-1 "aud":[] "roles":{} 1e9 0.5 "rbee":')], (JwtRefusedError,),
    ),
    Target(
        "key-set", _key_set, [key_set()],
        [*JSON_WORDS, *words('"kty":"oct" "d":"AA" "use":"enc" "crv":"P-384" "e":"AQ" "n":')],
        (KeySetError,),
    ),
)  # fmt: skip
