"""``[jwt]`` of ``rbee.toml``: whose tokens are taken beside keys, and what they are worth."""

import ipaddress
import re
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from rbee.rate_limits import NO_LIMITS, Limits
from rbee.section import Section

_HOST: Final = r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][A-Za-z0-9.-]{0,252})(?::(?P<port>[0-9]{1,5}))?"
_HTTPS_URL: Final = re.compile(rf"https://{_HOST}(?:/[!$-;=?-Z_a-z~]*)?")
_REDIS_URL: Final = re.compile(rf"rediss?://{_HOST}(?:/[0-9]{{1,4}})?")


def _is_url(text: str, form: re.Pattern[str]) -> bool:
    match = form.fullmatch(text)
    return match is not None and int(match["port"] or 1) in range(1, 65_536)


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


Algorithm = Literal["RS256", "ES256", "EdDSA"]
RoleName = Literal["viewer", "user", "operator", "admin"]


class JwtConfig(Section, frozen=True):
    """``[jwt]``: the tokens of one issuer, taken beside keys. See docs/jwt.md."""

    issuer: Annotated[str, Meta(max_length=512)] = ""  # what ``iss`` must be; "": no JWT is taken
    audience: str = ""  # what ``aud`` must name
    jwks_file: str = ""  # the issuer's public keys: a file, or ...
    jwks_url: str = ""  # ... an https address
    jwks_ca_file: str = ""  # who vouches for that address; "": those that the system trusts
    jwks_networks: Annotated[tuple[str, ...], Meta(max_length=16)] = ()  # not public, yet allowed
    jwks_refresh_s: Annotated[float, Meta(ge=10, le=86_400)] = 300.0  # the address is asked again
    jwks_stale_s: Annotated[float, Meta(ge=0, le=604_800)] = 86_400.0  # old keys hold without it
    algorithms: Annotated[tuple[Algorithm, ...], Meta(min_length=1, max_length=3)] = (
        "RS256", "ES256", "EdDSA",
    )  # fmt: skip
    leeway_s: Annotated[float, Meta(ge=0, le=60)] = 30.0  # between the issuer's clock and ours
    lifetime_s_max: Annotated[float, Meta(ge=60, le=2_592_000)] = 86_400.0  # from iat to exp
    roles_claim: Annotated[str, Meta(min_length=1, max_length=256)] = "roles"
    # {}: the names are ours
    roles: Annotated[dict[str, RoleName], Meta(max_length=64)] = msgspec.field(default_factory=dict)
    models_claim: Annotated[str, Meta(max_length=256)] = ""  # "": all models
    limits: Limits = NO_LIMITS  # of each subject
    # Of a role's subjects, in place of ``limits``.
    role_limits: dict[RoleName, Limits] = msgspec.field(default_factory=dict)
    redis_url: str = ""  # where several boxes share what was revoked; "": each has its own
    redis_password_file: str = ""
    on_redis_failure: Literal["open", "closed"] = "closed"  # tokens, once nobody knows any more

    def __post_init__(self) -> None:
        if not self.issuer:
            return
        if not self.audience:
            raise ValueError("audience must be set where issuer is")
        if bool(self.jwks_file) == bool(self.jwks_url):
            raise ValueError("one of jwks_file and jwks_url must be set where issuer is")
        if self.jwks_url and not _is_url(self.jwks_url, _HTTPS_URL):
            raise ValueError("jwks_url must be https://HOST[:PORT]/PATH, without user and fragment")
        if self.redis_url and not _is_url(self.redis_url, _REDIS_URL):
            raise ValueError("redis_url must be redis[s]://HOST[:PORT][/NUMBER], without password")
        if not all(map(_is_network, self.jwks_networks)):
            raise ValueError("jwks_networks must hold networks, such as 10.0.0.0/8")
