"""Finds out who makes a request: by its credential, or not at all.

Rule 1: a key that was found good before is recognised at once, whatever else goes on. Only a key
        that is new here waits for argon2, in the one thread of the `Verifier`.
Rule 2: an unknown id takes the same way, and the same time, as a wrong secret.
Rule 3: all of this is synchronous; what is to be waited for is handed back.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from rbee.audit import NO_AUDIT, Audit
from rbee.audit.events import AuthFailure, AuthSuccess, LimitExceeded, Outcome
from rbee.errors import ErrorCode, RequestError
from rbee.supervisor.access.allowances import Allowances
from rbee.supervisor.access.api_key import fingerprint, id_of
from rbee.supervisor.access.authorization import NoCredentialError, looks_like_jwt, read_bearer
from rbee.supervisor.access.failures import Failure, FailureLedger, Told
from rbee.supervisor.access.hashing import NOBODYS_HASH
from rbee.supervisor.access.keyring import Key, Keyring
from rbee.supervisor.access.principal import ANYBODY, JWT_ACTOR, Principal
from rbee.supervisor.access.throttle import Throttle, ThrottleLimits
from rbee.supervisor.access.verifier import QUEUE_MAX, VERIFICATION_S, Verification, Verifier

NOBODY: Final = "anonymous"  # in the audit log: somebody who did not show who they are

_REFUSED: Final = "the API key is not valid"
_MESSAGES: Final = {
    "unknown": _REFUSED,
    "wrong": _REFUSED,
    "expired": "the API key has expired",
    "revoked": "the API key was revoked",
}
_JWT_MESSAGES: Final = {"expired": "the JWT has expired", "revoked": "the JWT was revoked"}

# What makes a JWT one that nobody has issued. One that has expired, say, is an honest mistake.
_FORGED: Final = frozenset({"malformed", "unknown", "wrong"})

Clock = Callable[[], float]


class DeniedError(RequestError):
    """Somebody is not let in.

    Args:
      reason: in one word of the audit log; see `AuthFailure`.
      fingerprint: of what was shown; None: nothing was.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        reason: str,
        fingerprint: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(code, message, retry_after_s=retry_after_s)
        self.reason = reason
        self.fingerprint = fingerprint


@dataclass(frozen=True, slots=True)
class Pending:
    """Who makes a request is being found out. Ask for the `principal` once that is done."""

    verification: Verification
    principal: Callable[[], Principal]  # raises `DeniedError`


class Jwts(Protocol):
    """Whose a JWT is; all raise `DeniedError`, or a `RequestError` where it cannot be said."""

    def recall(self, text: str) -> Principal | None:
        """If it was found good before."""
        ...

    def verify(self, text: str) -> Principal | Pending: ...

    def is_revoked(self, principal: Principal) -> bool:
        """Whether the JWT of somebody who was let in was revoked since. Raises nothing."""
        ...


class Access:
    """Who may come in.

    Args:
      verifier: its `run` must run wherever there are keys.
      clock: for throttling and limits.
      unix_clock: for expiry.
      jwts: None: none is taken.
    """

    def __init__(  # noqa: PLR0913  # what it is put together from, once each
        self,
        keyring: Keyring,
        verifier: Verifier,
        *,
        clock: Clock,
        unix_clock: Clock,
        audit: Audit = NO_AUDIT,
        throttle_limits: ThrottleLimits | None = None,
        jwts: Jwts | None = None,
    ) -> None:
        self.keyring: Final = keyring
        self.allowances: Final = Allowances(clock, self._note_exceeded)
        self._verifier = verifier
        self._jwts = jwts
        self._throttle = Throttle(throttle_limits or ThrottleLimits())
        self._ledger = FailureLedger()
        self._greeted: set[str] = set()  # credentials whose first use was recorded
        self._audit = audit
        self._clock = clock
        self._unix_clock = unix_clock

    @property
    def is_open(self) -> bool:
        """Whether nobody need show a key: there is none, and none is required."""
        return not self.keyring.is_required

    def identify(
        self, authorization: Sequence[str], x_api_key: Sequence[str], address: str
    ) -> Principal | Pending:
        """Who it is that shows these headers.

        Args:
          address: the client's, without the port.
        Raises:
          DeniedError: nobody we know.
        """
        if self.is_open:
            return ANYBODY
        try:
            token = read_bearer(authorization, x_api_key)
        except NoCredentialError as error:
            code = ErrorCode.INVALID_API_KEY
            raise DeniedError(code, error.message, reason=error.reason) from error
        if self._jwts is not None and looks_like_jwt(token):
            return self._look_at_jwt(self._jwts, token, address)
        digest = self.keyring.digest(token)
        key = self.keyring.recall(digest)
        if key is not None:
            return self._let_in(key, token)
        return self._look_at(token, digest, address)

    def lapsed(self, principal: Principal) -> RequestError | None:
        """Why somebody who was let in is not any more; None: they are.

        What runs for them is to end, and nothing new to begin.
        """
        fault, now_unix_s, messages = "", self._unix_clock(), _MESSAGES
        expires = principal.expires_unix_s
        if principal.is_key:
            key = self.keyring.find(principal.credential_id)
            fault = "revoked" if key is None else key.fault(now_unix_s)
        elif expires is not None and now_unix_s >= expires:
            fault = "expired"
        if principal.actor.startswith(JWT_ACTOR):
            messages = _JWT_MESSAGES
            if self._jwts is not None and self._jwts.is_revoked(principal):
                fault = "revoked"
        return RequestError(ErrorCode.INVALID_API_KEY, messages[fault]) if fault else None

    def _let_in(self, key: Key, token: str) -> Principal:
        fault = key.fault(self._unix_clock())
        if fault:
            raise _denied(fault, token)
        return key.principal

    def _look_at(self, token: str, digest: bytes, address: str) -> Pending:
        key_id = id_of(token)
        if key_id is None:
            raise _denied("unknown", token)
        key = self.keyring.find(key_id)
        reason = "unknown" if key is None else "wrong"
        if self.keyring.is_known_bad(digest):
            raise _denied(reason, token)
        wait_s = self._throttle.wait_s(address, key_id, self._clock())
        if wait_s > 0:
            message = "too many keys that are not valid came from this address, or with this id"
            raise _throttled(message, token, wait_s)
        verification = self._verifier.verify(digest, token, self._hash_of(key_id))
        if verification is None:
            message = "too many keys are being looked at"
            raise _throttled(message, token, QUEUE_MAX * VERIFICATION_S)
        if not verification.is_claimed:
            verification.is_claimed = True
            verification.call_when_done(lambda: self._learn(verification, key_id, address))
        return Pending(verification, lambda: self._conclude(verification, key_id, token, reason))

    def _hash_of(self, key_id: str) -> str:
        key = self.keyring.find(key_id)
        return NOBODYS_HASH if key is None else key.hash

    def _learn(self, verification: Verification, key_id: str, address: str) -> None:
        if verification.is_good:
            self.keyring.remember(verification.digest, key_id)
        elif verification.is_good is False:
            # It was held against the key that was there when it came. One that has come since, or
            # has taken that one's place, may be the very one: it is to be looked at anew.
            if verification.hashed == self._hash_of(key_id):
                self.keyring.remember_bad(verification.digest)
            self._throttle.note_failure(address, key_id, self._clock())

    def _conclude(
        self, verification: Verification, key_id: str, token: str, reason: str
    ) -> Principal:
        if verification.is_good is None:
            raise _throttled("the key cannot be looked at now", token, VERIFICATION_S)
        key = self.keyring.find(key_id)
        if not verification.is_good or key is None:
            raise _denied(reason, token)
        return self._let_in(key, token)

    # --- JWTs

    def _look_at_jwt(self, jwts: Jwts, text: str, address: str) -> Principal | Pending:
        known = jwts.recall(text)
        if known is not None:
            return known
        wait_s = self._throttle.wait_s(address, fingerprint(text), self._clock())
        if wait_s > 0:
            message = "too many JWTs that are forged, or broken, came from this address"
            raise _throttled(message, text, wait_s)
        with self._counting_forgeries(text, address):
            found = jwts.verify(text)
        if isinstance(found, Principal):
            return found
        pending = found

        def conclude() -> Principal:
            with self._counting_forgeries(text, address):
                return pending.principal()

        return Pending(pending.verification, conclude)

    @contextlib.contextmanager
    def _counting_forgeries(self, text: str, address: str) -> Iterator[None]:
        try:
            yield
        except DeniedError as error:
            if error.reason in _FORGED:
                self._throttle.note_failure(address, fingerprint(text), self._clock())
            raise

    # --- for the audit log

    def note_use(self, principal: Principal, route: str, address: str) -> None:
        """Record that a credential was used, the first time in the life of this process."""
        name = principal.credential_id
        if not name or name in self._greeted:
            return
        if len(self._greeted) >= _GREETED_MAX:
            self._greeted.clear()
        self._greeted.add(name)
        key = self.keyring.find(name)
        self._audit.record(
            AuthSuccess(
                key=name,
                fingerprint="" if key is None else key.fingerprint,
                role=principal.role,
                route=route,
                address=address,
            ),
            actor=principal.actor,
        )

    def note_denial(self, denial: DeniedError, route: str, address: str) -> None:
        """Record that somebody was not let in; of many, only how many they were."""
        failure = Failure(denial.reason, denial.fingerprint, route, address)
        told = self._ledger.note(failure, self._clock())
        if told is not None:
            self._record(told)

    def tell_counted(self) -> None:
        """Record what was only counted, where its time has come. To be called each second."""
        for told in self._ledger.due(self._clock()):
            self._record(told)

    def _record(self, told: Told) -> None:
        failure = told.failure
        self._audit.record(
            AuthFailure(
                reason=failure.reason,
                fingerprint=failure.fingerprint,
                route=failure.route,
                address=failure.address,
                times=told.times,
            ),
            actor=NOBODY,
            outcome=Outcome.DENIED,
        )

    def _note_exceeded(self, principal: Principal, limit: str, allowed: int) -> None:
        subject = principal.credential_id if principal.is_key else principal.actor
        details = LimitExceeded(limit=limit, subject=subject, allowed=allowed, found=None)
        self._audit.record(details, actor=principal.actor, outcome=Outcome.DENIED)


# Credentials that are remembered as seen: keys are fewer, tokens may be more.
_GREETED_MAX: Final = 20_000


def _denied(reason: str, token: str) -> DeniedError:
    return DeniedError(
        ErrorCode.INVALID_API_KEY, _MESSAGES[reason], reason=reason, fingerprint=fingerprint(token)
    )


def _throttled(message: str, token: str, wait_s: float) -> DeniedError:
    return DeniedError(
        ErrorCode.AUTHENTICATION_THROTTLED,
        f"{message}; try again later",
        reason="throttled",
        fingerprint=fingerprint(token),
        retry_after_s=wait_s,
    )
