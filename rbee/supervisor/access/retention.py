"""For how long it is remembered that a JWT was revoked. Pure: the time is an argument."""

import math

from rbee.jwt_config import JwtConfig


def kept_until_s(config: JwtConfig, now_unix_s: float, expires_s: float | None) -> int:
    """Until when a revocation that is made now is kept.

    Args:
      expires_s: what the JWT says of its own end; None: that is not known. Then it is kept until
        no JWT that was issued before now can be good any more.
    """
    # Issued at most one leeway ahead of us, good for one leeway beyond its end.
    latest_s = now_unix_s + config.lifetime_s_max + 2 * config.leeway_s
    own_s = latest_s if expires_s is None else expires_s + config.leeway_s
    return math.ceil(min(own_s, latest_s)) + 1
