"""Key sets: one algorithm for each key, and nothing that could be two things."""

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from rbee.supervisor.access.jwt.key_set import KEYS_MAX, SET_BYTES_MAX, KeySetError, parse_key_set
from rbee.supervisor.access.jwt.signatures import VerifyingKeys
from tests.access.jwt.issuer import EC_KEY, ED_KEY, RSA_KEY, jwk, key_set

ALL = ("RS256", "ES256", "EdDSA")
OURS = jwk(EC_KEY, kid="ours")


def parse(*keys: dict[str, Any]) -> dict[str, str]:
    return {kid: alg for kid, (alg, _) in parse_key_set(key_set(*keys), ALL).keys.items()}


def number(value: int, length: int) -> str:
    return base64.urlsafe_b64encode(value.to_bytes(length)).rstrip(b"=").decode()


def test_the_type_of_a_key_says_its_algorithm() -> None:
    keys = jwk(RSA_KEY, kid="r"), jwk(EC_KEY, kid="e"), jwk(ED_KEY, kid="d")
    assert parse(*keys) == {"r": "RS256", "e": "ES256", "d": "EdDSA"}


WEAK = rsa.generate_private_key(65537, 1024)


@pytest.mark.parametrize(
    "odd",
    [
        {"kty": "oct", "k": "AAAA", "kid": "x", "alg": "HS256"},
        {"kty": "oct", "k": "", "kid": "x"},
        jwk(RSA_KEY),  # without an id
        jwk(RSA_KEY, kid="x", use="enc"),
        jwk(RSA_KEY, kid="x", alg="RSA-OAEP"),
        jwk(RSA_KEY, kid="x", alg="PS256"),
        jwk(RSA_KEY, kid="x", alg="HS256"),
        jwk(RSA_KEY, kid="x", alg="none"),
        jwk(RSA_KEY, kid="x", key_ops=["encrypt"]),
        jwk(RSA_KEY, kid="x", n=""),
        jwk(RSA_KEY, kid="x", e=""),
        jwk(RSA_KEY, kid="x", e="AQ"),  # 1: a signature would be its own message
        jwk(RSA_KEY, kid="x", e="Ag"),  # 2
        jwk(RSA_KEY, kid="x", e=number(2**64 + 1, 9)),
        jwk(WEAK, kid="x"),
        jwk(RSA_KEY, kid="x", n="!!"),
        jwk(EC_KEY, kid="x", crv="P-384"),
        jwk(EC_KEY, kid="x", crv="secp256k1"),
        jwk(EC_KEY, kid="x", x="AA"),
        jwk(EC_KEY, kid="x", y=None),
        jwk(ED_KEY, kid="x", crv="Ed448"),
        jwk(ED_KEY, kid="x", crv="X25519"),
        jwk(ED_KEY, kid="x" * 257),
        {"kty": "AKP", "kid": "x", "alg": "ML-DSA-44", "pub": "A" * 1800},
        {"kty": 1, "kid": "x"},
        {"kty": "RSA", "kid": "x", "\ud800": 1},
        {},
    ],
)
def test_a_key_that_is_of_no_use_is_left_out_and_the_others_are_taken(odd: dict[str, Any]) -> None:
    parsed = parse_key_set(key_set(odd, OURS), ALL)
    assert list(parsed.keys) == ["ours"]
    assert parsed.left_out == 1


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"", "must be JSON"),
        (b"[]", 'a list "keys"'),
        (b'{"keys": {}}', 'a list "keys"'),
        (b'{"keys": [1]}', r"keys\[0\] must be an object"),
        (b'{"keys": []}', "none of 0 keys"),
        (b"[" * 100_000, "must be JSON"),
        (b"\xff\xfe", "must be JSON"),
        (b" " * (SET_BYTES_MAX + 1), "at most 262144 bytes"),
        (json.dumps({"keys": [OURS] * (KEYS_MAX + 1)}).encode(), "at most 100 keys, found 101"),
        (key_set(OURS, jwk(ED_KEY, kid="ours")), r"keys\[1\] has the kid of a key before it"),
        (key_set(RSAAlgorithm.to_jwk(RSA_KEY, as_dict=True) | {"kid": "x"}), "holds a private key"),
        (key_set(ECAlgorithm.to_jwk(EC_KEY, as_dict=True) | {"kid": "x"}), "holds a private key"),
        (key_set(OKPAlgorithm.to_jwk(ED_KEY, as_dict=True) | {"kid": "x"}), "holds a private key"),
        (key_set(jwk(ec.generate_private_key(ec.SECP384R1()), kid="x")), "none of 1 keys"),
        (key_set(jwk(ed448.Ed448PrivateKey.generate(), kid="x")), "none of 1 keys"),
    ],
)
def test_what_is_no_set_of_keys_is_refused(raw: bytes, problem: str) -> None:
    with pytest.raises(KeySetError, match=problem):
        parse_key_set(raw, ALL)


def test_a_point_that_is_not_on_its_curve_is_no_key() -> None:
    odd = jwk(EC_KEY, kid="x", y=number(5, 32))
    with pytest.raises(KeySetError, match="the key 'x' is not a public key"):
        VerifyingKeys(parse_key_set(key_set(odd), ALL))
