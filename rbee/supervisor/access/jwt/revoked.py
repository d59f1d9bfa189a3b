"""Which JWTs were revoked: what the store has, and what other boxes share. Pure but for its clock.

Rule 1: only `replace_own` and `replace_shared` change what is known.
Rule 2: until the store was read once, and while what is shared is unknown for too long, it cannot
        be said whether a JWT was revoked.
"""

from collections.abc import Callable, Mapping

from rbee.supervisor.access.jwt.bearers import NobodyKnowsError


class SharedUnavailableError(Exception):
    """What is shared cannot be had now, or given."""


class RevokedJwts:
    """JWTs that are not to be taken, by their ``jti``, each with the time it expires.

    Args:
      is_shared: with other boxes, so that what they have is to be known, too ...
      may_be_blind: ... or not, if it cannot be had.
    """

    def __init__(
        self, *, is_shared: bool, may_be_blind: bool, unix_clock: Callable[[], float]
    ) -> None:
        self._own: Mapping[str, int] | None = None
        self._shared: Mapping[str, int] = {}
        self._is_blind = is_shared
        self._may_be_blind = may_be_blind
        self._unix_clock = unix_clock

    def is_revoked(self, jti: str) -> bool:
        """Whether it was revoked.

        Raises:
          NobodyKnowsError: it cannot be said now.
        """
        if self._own is None:
            raise NobodyKnowsError("it is not known yet which JWTs were revoked")
        if jti in self._own or jti in self._shared:
            return True
        if self._is_blind and not self._may_be_blind:
            raise NobodyKnowsError("it is not known now which JWTs were revoked")
        return False

    @property
    def own(self) -> dict[str, int]:
        """Those of the store that have not expired."""
        return self._current(self._own or {})

    @property
    def shared(self) -> dict[str, int]:
        return self._current(self._shared)

    def replace_own(self, revoked: Mapping[str, int]) -> None:
        """Take what the store has."""
        self._own = dict(revoked)

    def replace_shared(self, revoked: Mapping[str, int] | None) -> None:
        """Take what is shared. None: what was taken last still holds."""
        self._is_blind = False
        if revoked is not None:
            self._shared = dict(revoked)

    def note_blind(self) -> None:
        """What is shared has not been known for too long."""
        self._is_blind = True

    def _current(self, revoked: Mapping[str, int]) -> dict[str, int]:
        now_s = self._unix_clock()
        return {jti: expires_s for jti, expires_s in revoked.items() if expires_s > now_s}
