"""What a JWT claims, and what follows from it. Pure: the time is an argument.

Rule: the signature was verified before. What is wrong here may be told to the client.
"""

import hashlib
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from rbee.ids import is_model_name
from rbee.jwt_config import JwtConfig
from rbee.rate_limits import Limits
from rbee.supervisor.access.jwt.form import JwtRefusedError, Reason
from rbee.supervisor.access.principal import JTI, JWT_ACTOR, Principal, Role

MODELS_MAX: Final = 256
ALL_MODELS: Final = "*"
CREDENTIAL: Final = "jwt:"  # before a jti: ids of keys are others

_SUBJECT_DIGITS: Final = 16

Text = Annotated[str, Meta(min_length=1, max_length=1024)]
NumericDate = Annotated[float, Meta(ge=0, le=1e11)]


class _Registered(msgspec.Struct, frozen=True):
    """The claims that every JWT must have (RFC 7519, 4.1)."""

    iss: Text
    aud: Text | Annotated[tuple[Text, ...], Meta(max_length=64)]
    exp: NumericDate
    nbf: NumericDate
    iat: NumericDate
    jti: Annotated[str, Meta(pattern=rf"^{JTI}\Z")]
    sub: Text


@dataclass(frozen=True, slots=True)
class Bearer:
    """Whom a JWT speaks for, which one it is, and how long."""

    principal: Principal
    jti: str
    ends_unix_s: float  # with leeway


def bearer_of(payload: dict[str, Any], config: JwtConfig, now_unix_s: float) -> Bearer:
    """Check the claims of a JWT.

    Raises:
      JwtRefusedError: CLAIMS, NOT_YET_VALID or EXPIRED.
    """
    try:
        claims = msgspec.convert(payload, _Registered)
    except msgspec.ValidationError as error:
        raise _bad(f"the JWT's claims: {error}") from None
    except UnicodeEncodeError:  # JSON can spell half a character, which no text may hold
        raise _bad("the JWT's claims must be text of whole characters") from None
    if claims.iss != config.issuer:
        raise _bad("the JWT's iss is not the issuer that this server trusts")
    audiences = (claims.aud,) if isinstance(claims.aud, str) else claims.aud
    if config.audience not in audiences:
        raise _bad("the JWT's aud does not name this server")
    _check_times(claims, config, now_unix_s)
    ends_unix_s = claims.exp + config.leeway_s
    role = _role(_claim(payload, config.roles_claim), config)
    subject = hashlib.sha256(claims.sub.encode("utf-8", "surrogatepass")).hexdigest()
    principal = Principal(
        actor=f"{JWT_ACTOR}{claims.iss}/{subject[:_SUBJECT_DIGITS]}",
        role=role,
        models=_models(payload, config),
        limits=_limits(role, config),
        expires_unix_s=ends_unix_s,
        credential_id=f"{CREDENTIAL}{claims.jti}",
    )
    return Bearer(principal, claims.jti, ends_unix_s)


def _check_times(claims: _Registered, config: JwtConfig, now_unix_s: float) -> None:
    if claims.exp - claims.iat > config.lifetime_s_max:
        raise _bad(f"the JWT must expire at most {config.lifetime_s_max:g} s after its iat")
    if now_unix_s >= claims.exp + config.leeway_s:
        raise JwtRefusedError(Reason.EXPIRED, "the JWT has expired")
    if now_unix_s < max(claims.nbf, claims.iat) - config.leeway_s:
        raise JwtRefusedError(Reason.NOT_YET_VALID, "the JWT is not valid yet")


def _role(claim: object, config: JwtConfig) -> Role:
    """The highest role that the claim names."""
    names = claim.split() if isinstance(claim, str) else claim
    if not isinstance(names, list):
        names = []
    if config.roles:
        roles = [Role(config.roles[name]) for name in names if _is_key(name, config.roles)]
    else:
        roles = [role for role in Role if role.value in names]
    if not roles:
        raise _bad("the JWT names no role that this server knows")
    ranked = list(Role)
    return max(roles, key=ranked.index)


def _limits(role: Role, config: JwtConfig) -> Limits:
    of_roles = {Role(name): limits for name, limits in config.role_limits.items()}
    return of_roles.get(role, config.limits)


def _is_key(name: object, mapping: dict[str, Any]) -> bool:
    return isinstance(name, str) and name in mapping


def _models(payload: dict[str, Any], config: JwtConfig) -> frozenset[str]:
    """The models that may be asked for; empty: all. A claim that is not there grants none."""
    if not config.models_claim:
        return frozenset()
    claim = _claim(payload, config.models_claim)
    names = claim.split() if isinstance(claim, str) else claim
    if not isinstance(names, list) or not names or len(names) > MODELS_MAX:
        raise _bad("the JWT names no models, or too many")
    if ALL_MODELS in names:
        return frozenset()
    if not all(isinstance(name, str) and is_model_name(name) for name in names):
        raise _bad("the JWT names models that can be none")
    return frozenset(names)


def _claim(payload: dict[str, Any], name: str) -> object:
    """A claim by its name, or by a JSON pointer (RFC 6901) that begins with a slash."""
    if not name.startswith("/"):
        return payload.get(name)
    found: object = payload
    for part in name[1:].split("/"):
        if not isinstance(found, dict):
            return None
        found = found.get(part.replace("~1", "/").replace("~0", "~"))
    return found


def _bad(problem: str) -> JwtRefusedError:
    return JwtRefusedError(Reason.CLAIMS, problem)
