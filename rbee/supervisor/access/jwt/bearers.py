"""Who bears a JWT: verified once, then known by a digest for as long as it is good.

Rule 1: a JWT that was verified costs one digest and some look-ups from then on. None is held.
Rule 2: when the issuer's keys change, all are verified anew: a key that has gone opens nothing.
Rule 3: what was revoked is looked up each time.
"""

import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

from rbee.jwt_config import JwtConfig
from rbee.supervisor.access.jwt.claims import CREDENTIAL, Bearer, bearer_of
from rbee.supervisor.access.jwt.form import Header, JwtRefusedError, Reason
from rbee.supervisor.access.jwt.signatures import VerifyingKeys
from rbee.supervisor.access.principal import Principal

# One takes some 600 bytes. Who was used longest ago is forgotten, and verified again: 0.1 ms.
BEARERS_MAX: Final = 10_000

_SECRET_BYTES: Final = 32


class NobodyKnowsError(Exception):
    """Whether a JWT is good cannot be said now. The message is for the author of the client."""


class Revoked(Protocol):
    """What was revoked."""

    def is_revoked(self, jti: str) -> bool:
        """Raises: NobodyKnowsError: it cannot be said now."""
        ...


class Bearers:
    """Those whose JWT was found good."""

    def __init__(
        self, config: JwtConfig, revoked: Revoked, unix_clock: Callable[[], float]
    ) -> None:
        self._config = config
        self._revoked = revoked
        self._unix_clock = unix_clock
        self._secret = secrets.token_bytes(_SECRET_BYTES)
        self._known: OrderedDict[bytes, Bearer] = OrderedDict()
        self._keys: VerifyingKeys | None = None  # that those were verified with

    def recall(self, text: str, keys: VerifyingKeys) -> Principal | None:
        """Whose JWT it is, if it was found good before.

        Raises:
          JwtRefusedError: EXPIRED or REVOKED.
          NobodyKnowsError: what was revoked is not known now.
        """
        self._follow(keys)
        digest = self._digest(text)
        bearer = self._known.get(digest)
        if bearer is None:
            return None
        self._known.move_to_end(digest)
        return self._let_in(bearer)

    def verify(self, text: str, header: Header, keys: VerifyingKeys) -> Principal:
        """Whose JWT it is.

        Args:
          header: the one of this JWT.
        Raises:
          JwtRefusedError: it is not taken.
          NobodyKnowsError: what was revoked is not known now.
        """
        payload = keys.verify(text, header)
        bearer = bearer_of(payload, self._config, self._unix_clock())
        principal = self._let_in(bearer)
        self._follow(keys)
        self._known[self._digest(text)] = bearer
        if len(self._known) > BEARERS_MAX:
            self._known.popitem(last=False)
        return principal

    def is_revoked(self, principal: Principal) -> bool:
        """Whether the JWT of somebody who was let in was revoked since."""
        try:
            return self._revoked.is_revoked(principal.credential_id.removeprefix(CREDENTIAL))
        except NobodyKnowsError:
            return False  # what runs may go on; only who comes anew is refused

    def _follow(self, keys: VerifyingKeys) -> None:
        """Forget those who were verified with other keys."""
        if keys is not self._keys:
            self._known.clear()
            self._keys = keys

    def _let_in(self, bearer: Bearer) -> Principal:
        if self._unix_clock() >= bearer.ends_unix_s:
            raise JwtRefusedError(Reason.EXPIRED, "the JWT has expired")
        if self._revoked.is_revoked(bearer.jti):
            raise JwtRefusedError(Reason.REVOKED, "the JWT was revoked")
        return bearer.principal

    def _digest(self, text: str) -> bytes:
        return hmac.digest(self._secret, text.encode("ascii"), "sha256")
