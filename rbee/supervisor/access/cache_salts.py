"""Whose requests may share what an engine keeps of them. Pure, but for the secret's drawing.

An engine that knows the beginning of a prompt already answers sooner, and who measures that would
learn what others have asked. So each client has a salt, which goes with its requests to the
workers; what they keep is found by the same salt alone.
"""

import hmac
import secrets
from typing import Final

from rbee.supervisor.access.principal import ANYBODY, Principal

SALT_BYTES: Final = 16


class CacheSalts:
    """The salts of one supervisor process: nobody outside can tell whose a salt is."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def of(self, principal: Principal | None) -> bytes:
        """The salt of a client: of a key, or of a JWT's subject; one of all who come without."""
        actor = (principal or ANYBODY).actor.encode()
        return hmac.digest(self._secret, actor, "sha256")[:SALT_BYTES]
