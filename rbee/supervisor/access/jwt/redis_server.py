"""Revocations that several boxes share by a Redis-compatible server: the only file to know Redis.

Of each issuer there is a sorted set ``rbee:revoked:ISSUER``: a member is a ``jti``, its score the
Unix time from which on the JWT is refused anyway; and a number ``rbee:revoked:ISSUER:version``,
raised with each change. Whoever revokes does ZADD, then INCR; another program may do so, too.

Rule: synchronous, and bounded in time. To be called in a thread.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from rbee.jwt_config import JwtConfig
from rbee.secret_files import Secret, read_secret_file
from rbee.supervisor.access.jwt.revoked import SharedUnavailableError

TIMEOUT_S: Final = 2.0  # to connect, and for each answer
SHARED_MAX: Final = 100_000


class SharedRevocations:
    """What a Redis-compatible server has of one issuer.

    Args:
      config: with a ``redis_url``.
    Raises:
      ConfigError: the file with the password cannot be used.
    """

    def __init__(self, config: JwtConfig) -> None:
        password: Secret | None = None
        if config.redis_password_file:
            password = read_secret_file(Path(config.redis_password_file))
        self._set = f"rbee:revoked:{config.issuer}"
        self._number = f"{self._set}:version"
        self._version: str | None = None
        self._redis: Any = Redis.from_url(
            config.redis_url,
            password=None if password is None else password.reveal().decode("utf-8"),
            socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), 0), decode_responses=True, max_connections=1,
        )  # fmt: skip

    def close(self) -> None:
        self._redis.close()

    def read(self, now_s: int, *, anew: bool = False) -> dict[str, int] | None:
        """What was revoked and has not expired.

        Args:
          anew: also if nothing has changed.
        Returns:
          None: what was read last still holds.

        Raises:
          SharedUnavailableError
        """
        try:
            version = str(self._redis.get(self._number))
            if version == self._version and not anew:
                return None
            rows = self._redis.zrangebyscore(
                self._set, f"({now_s}", "+inf", start=0, num=SHARED_MAX + 1, withscores=True
            )
        except (RedisError, UnicodeError, OSError) as error:
            raise SharedUnavailableError(f"{type(error).__name__}: {error}") from error
        if len(rows) > SHARED_MAX:
            raise SharedUnavailableError(f"it has more than {SHARED_MAX} revocations")
        self._version = version
        return {jti: int(min(score, 1e11)) for jti, score in rows}

    def add(self, revoked: Mapping[str, int], now_s: int) -> None:
        """Share revocations; forget those that have expired.

        Raises:
          SharedUnavailableError
        """
        try:
            with self._redis.pipeline(transaction=True) as pipe:
                # The later expiry wins, whoever comes last.
                pipe.zadd(self._set, dict(revoked), gt=True)
                pipe.zremrangebyscore(self._set, "-inf", now_s)
                pipe.incr(self._number)
                pipe.execute()
        except (RedisError, UnicodeError, OSError) as error:
            raise SharedUnavailableError(f"{type(error).__name__}: {error}") from error
