"""An issuer of JWTs, as a test needs one: keys, key sets, and JWTs with all that can be wrong."""

import base64
import json
import time
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.api_jws import PyJWS

from rbee.jwt_config import Algorithm, JwtConfig

ISSUER = "https://id.example.org/realms/gpu"
AUDIENCE = "rbee"
NOW_S = 1_800_000_000

RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()
OTHER_RSA_KEY = rsa.generate_private_key(65537, 2048)

KEYS: dict[Algorithm, Any] = {"RS256": RSA_KEY, "ES256": EC_KEY, "EdDSA": ED_KEY}


def config(**more: Any) -> JwtConfig:
    given = {"issuer": ISSUER, "audience": AUDIENCE, "jwks_file": "/nowhere", **more}
    if "jwks_url" in more:
        del given["jwks_file"]
    return JwtConfig(**given)


def jwk(key: Any, **more: Any) -> dict[str, Any]:
    """The public part of a key."""
    public = key.public_key()
    if isinstance(key, rsa.RSAPrivateKey):
        members = RSAAlgorithm.to_jwk(public, as_dict=True)
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        members = ECAlgorithm.to_jwk(public, as_dict=True)
    else:
        members = OKPAlgorithm.to_jwk(public, as_dict=True)
    members.pop("key_ops", None)
    return {**members, **more}


def key_set(*keys: dict[str, Any]) -> bytes:
    """Without keys: one of each algorithm, whose id is its name."""
    members = keys or tuple(jwk(key, kid=name, use="sig") for name, key in KEYS.items())
    return json.dumps({"keys": members}).encode()


def write_key_set(path: Path, *keys: dict[str, Any]) -> None:
    path.write_bytes(key_set(*keys))
    path.chmod(0o644)


def claims(now_s: float | None = None, **more: Any) -> dict[str, Any]:
    """What a good JWT claims; a claim that is given as None is left out."""
    at_s = int(time.time() if now_s is None else now_s)
    given = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "exp": at_s + 600, "nbf": at_s, "iat": at_s,
        "jti": "j-1", "roles": ["user"], **more,
    }  # fmt: skip
    return {name: value for name, value in given.items() if value is not None}


def sign(
    payload: dict[str, Any] | bytes,
    algorithm: Algorithm = "ES256",
    *,
    key: Any = None,
    kid: str | None = None,
    **header: Any,
) -> str:
    """A JWT, signed in earnest."""
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    headers = {"kid": algorithm if kid is None else kid, **header}
    return PyJWS().encode(raw, key or KEYS[algorithm], algorithm, headers=headers)


def part(value: object) -> str:
    """One part of a JWT that nobody has signed."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
