"""JWTs put together: the issuer's keys, who bears a JWT, and what was revoked."""

import time
from pathlib import Path

import trio

from rbee.audit import NO_AUDIT, Audit
from rbee.errors import ConfigError, ErrorCode, RequestError
from rbee.jwt_config import JwtConfig
from rbee.logs import Log
from rbee.supervisor.access.access import DeniedError, Pending
from rbee.supervisor.access.api_key import fingerprint
from rbee.supervisor.access.jwt.bearers import Bearers, NobodyKnowsError
from rbee.supervisor.access.jwt.form import Header, JwtRefusedError, Reason, read_header
from rbee.supervisor.access.jwt.issuer_keys import IssuerKeys
from rbee.supervisor.access.jwt.revocations import Revocations
from rbee.supervisor.access.jwt.revoked import RevokedJwts
from rbee.supervisor.access.jwt.sharing import ASK_EVERY_S, Sharing
from rbee.supervisor.access.jwt.signatures import VerifyingKeys
from rbee.supervisor.access.principal import Principal
from rbee.supervisor.access.verifier import Verification


class Jwts:
    """Everything about JWTs. `open` it before trio runs, `run` it in trio, `close` it at the end.

    Args:
      config: with an issuer.
      store: the path of the store's file.
    Raises:
      ConfigError: it names what is not there: a password, or a library.
    """

    def __init__(self, config: JwtConfig, store: Path, log: Log, audit: Audit = NO_AUDIT) -> None:
        revoked = RevokedJwts(
            is_shared=bool(config.redis_url),
            may_be_blind=config.on_redis_failure == "open",
            unix_clock=time.time,
        )
        self.issuer_keys = IssuerKeys(config, log, time.monotonic)
        self.revocations = Revocations(store, config, revoked, log, audit)
        self._bearers = Bearers(config, revoked, time.time)
        self._sharing = _share(config, revoked, log) if config.redis_url else None

    def open(self) -> None:
        """Read what is on this machine.

        Raises:
          ConfigError: the file with the issuer's keys cannot be used.
        """
        self.issuer_keys.open()
        self.revocations.open()

    def close(self) -> None:
        self.revocations.close()

    async def run(self) -> None:
        """Keep all of it fresh until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.issuer_keys.run)
            nursery.start_soon(self.revocations.run)
            if self._sharing is not None:
                nursery.start_soon(self._sharing.run)

    def recall(self, text: str) -> Principal | None:
        """Whose JWT it is, if it was found good before.

        Raises:
          DeniedError: it was, and is not any more.
          RequestError: JWT_UNAVAILABLE: that cannot be said now.
        """
        keys = self.issuer_keys.keys
        if keys is None:
            return None
        try:
            return self._bearers.recall(text, keys)
        except JwtRefusedError as error:
            raise _denied(error, text) from error
        except NobodyKnowsError as error:
            raise _unavailable(str(error), ASK_EVERY_S) from error

    def verify(self, text: str) -> Principal | Pending:
        """Whose JWT it is. If its key is not known, fresh keys may have it: they are asked for.

        Raises:
          DeniedError: nobody's.
          RequestError: JWT_UNAVAILABLE: it cannot be said now.
        """
        try:
            header = read_header(text)
            return self._principal(text, header)
        except JwtRefusedError as error:
            if error.reason is Reason.UNKNOWN and (pending := self._wait(text, header)):
                return pending
            raise _denied(error, text) from error
        except NobodyKnowsError as error:
            if self.issuer_keys.keys is None and (pending := self._wait(text, header)):
                return pending
            raise _unavailable(str(error), self._retry_s) from error

    def is_revoked(self, principal: Principal) -> bool:
        """Whether the JWT of somebody who was let in was revoked since."""
        return self._bearers.is_revoked(principal)

    @property
    def _retry_s(self) -> float:
        return self.issuer_keys.retry_s if self.issuer_keys.keys is None else ASK_EVERY_S

    def _wait(self, text: str, header: Header) -> Pending | None:
        """Wait for fresh keys. None: they were asked for a moment ago, or too many wait."""
        fresh = Verification(b"", "", "")
        if not self.issuer_keys.call_when_fresh(lambda: fresh.finish(None)):
            return None
        return Pending(fresh, lambda: self._conclude(text, header))

    def _conclude(self, text: str, header: Header) -> Principal:
        try:
            return self._principal(text, header)
        except JwtRefusedError as error:
            raise _denied(error, text) from error
        except NobodyKnowsError as error:
            raise _unavailable(str(error), self._retry_s) from error

    def _principal(self, text: str, header: Header) -> Principal:
        return self._bearers.verify(text, header, self._keys())

    def _keys(self) -> VerifyingKeys:
        keys = self.issuer_keys.keys
        if keys is None:
            raise NobodyKnowsError("the keys that JWTs are verified with cannot be had now")
        return keys


def _denied(error: JwtRefusedError, text: str) -> DeniedError:
    return DeniedError(
        ErrorCode.INVALID_API_KEY, error.problem, reason=error.reason, fingerprint=fingerprint(text)
    )


def _unavailable(message: str, retry_s: float) -> RequestError:
    return RequestError(
        ErrorCode.JWT_UNAVAILABLE, f"{message}; try again later", retry_after_s=retry_s
    )


def _share(config: JwtConfig, revoked: RevokedJwts, log: Log) -> Sharing:
    try:
        # Who does not share needs no library for it.
        from rbee.supervisor.access.jwt.redis_server import SharedRevocations  # noqa: PLC0415
    except ImportError as error:
        message = "jwt.redis_url needs a library that is not installed: pip install 'rbee[redis]'"
        raise ConfigError(message) from error
    shared = SharedRevocations(config)
    return Sharing(shared, revoked, log, fails_closed=config.on_redis_failure == "closed")
