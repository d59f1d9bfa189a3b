"""How much each principal has left of what it may ask for. Pure: the time is an argument.

Rule 1: a request is counted when it is admitted, its tokens when the engine has made them: who
        breaks off pays for what was made, and for nothing else. Whose request is refused by what
        comes behind this, as the queue is full, gets it back.
Rule 2: as nobody knows beforehand how long an answer gets, tokens may be overdrawn by what runs
        already. What was overdrawn is paid back before the next request is admitted.
Rule 3: every `Lease` is ended once.
Rule 4: accounts are bounded. One is forgotten only when it is as a new one would be, so being
        forgotten gives nobody anything. Where none is, who bears a JWT that is new here has to
        wait: whoever has an issuer's keys makes as many subjects as they like. Keys never wait:
        the store holds few.
Rule 5: a subject has an account for each of its roles, as each may have limits of its own.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from rbee.errors import ErrorCode, RequestError
from rbee.rate_limits import Limits
from rbee.supervisor.access.bucket import Bucket
from rbee.supervisor.access.principal import Principal, Role

# From so many accounts on those of new subjects are not taken in. One takes some 600 bytes.
ACCOUNTS_MAX: Final = 20_000

# For each account that is made so many others are looked at, whether they can be forgotten.
LOOKS: Final = 8

# A bucket that is not overdrawn is full again after a minute.
_ROOM_RETRY_S: Final = 60.0

# The same limit of the same principal is told to the audit log once in so long.
TELL_EVERY_S: Final = 60.0

# How soon a place may be free where all are taken: nobody knows.
_PLACE_RETRY_S: Final = 1.0

OnExceeded = Callable[[Principal, str, int], None]
"""Called with the principal, the name of the limit and its value."""

Headers = list[tuple[bytes, bytes]]

_HEADERS: Final = b"x-ratelimit-"


class Lease:
    """One request of a principal that has limits. Count its tokens, and end it."""

    __slots__ = ("_account", "_clock", "_is_ended")

    def __init__(self, account: "_Account", clock: Callable[[], float]) -> None:
        self._account = account
        self._clock = clock
        self._is_ended = False

    def count_tokens(self, tokens: int) -> None:
        if self._account.tokens is not None and tokens:
            self._account.tokens.take(tokens, self._clock())

    def refund(self, headers: Headers) -> None:
        """Its request was refused after all: it does not count, and the headers say so."""
        if self._account.requests is not None:
            now_s = self._clock()
            self._account.requests.take(-1, now_s)
            headers[:] = [each for each in headers if not each[0].startswith(_HEADERS)]
            headers += _told(self._account, now_s)

    def end(self) -> None:
        if not self._is_ended:
            self._is_ended = True
            self._account.open -= 1


class _Account:
    """What one principal has left."""

    __slots__ = ("limits", "open", "requests", "tokens", "told_s")

    def __init__(self, limits: Limits, now_s: float) -> None:
        self.open = 0
        self.told_s: dict[str, float] = {}
        self.begin(limits, now_s)

    def begin(self, limits: Limits, now_s: float) -> None:
        """Start with full buckets; what is open stays open."""
        self.limits = limits
        a_minute = limits.requests_per_minute
        self.requests = None if a_minute is None else Bucket(a_minute, now_s)
        a_minute = limits.tokens_per_minute
        self.tokens = None if a_minute is None else Bucket(a_minute, now_s)

    def is_as_new(self, now_s: float) -> bool:
        """Whether nothing would change if it were made anew."""
        return (
            self.open == 0
            and (self.requests is None or self.requests.is_full(now_s))
            and (self.tokens is None or self.tokens.is_full(now_s))
            and all(until_s <= now_s for until_s in self.told_s.values())
        )


class Allowances:
    """Every principal's account.

    Args:
      on_exceeded: told of a limit that held somebody back, at most every `TELL_EVERY_S`.
    """

    def __init__(self, clock: Callable[[], float], on_exceeded: OnExceeded | None = None) -> None:
        self._clock = clock
        self._on_exceeded = on_exceeded
        # In the order in which they will be looked at.
        self._accounts: OrderedDict[tuple[str, Role], _Account] = OrderedDict()
        self._room_told_s = -math.inf

    def admit(self, principal: Principal, headers: Headers) -> Lease | None:
        """Count a request of a principal, if it may make one.

        Args:
          headers: of the answer; what is left is added to them, also where there is nothing left.
        Returns:
          None: this principal has no limits that are counted.

        Raises:
          RequestError: RATE_LIMITED.
        """
        if not principal.limits.are_counted:
            return None
        now_s = self._clock()
        account = self._account(principal, now_s)
        refusal = self._refusal(principal, account, now_s)
        if refusal is None and account.requests is not None:
            account.requests.take(1, now_s)
        headers += _told(account, now_s)
        if refusal is not None:
            raise refusal
        account.open += 1
        return Lease(account, self._clock)

    def _account(self, principal: Principal, now_s: float) -> _Account:
        name = principal.actor, principal.role
        account = self._accounts.get(name)
        if account is None:
            self._forget_some(now_s)
            if len(self._accounts) >= ACCOUNTS_MAX and not principal.is_key:
                raise self._no_room(principal, now_s)
            account = self._accounts[name] = _Account(principal.limits, now_s)
        elif account.limits != principal.limits:  # an operator has changed the store
            account.begin(principal.limits, now_s)
        return account

    def _forget_some(self, now_s: float) -> None:
        """Look at those whose turn it is; forget the ones that are as new."""
        for _ in range(min(LOOKS, len(self._accounts))):
            name, account = next(iter(self._accounts.items()))
            if account.is_as_new(now_s):
                del self._accounts[name]
            else:
                self._accounts.move_to_end(name)

    def _no_room(self, principal: Principal, now_s: float) -> RequestError:
        if now_s >= self._room_told_s and self._on_exceeded is not None:
            self._room_told_s = now_s + TELL_EVERY_S
            self._on_exceeded(principal, "subjects", ACCOUNTS_MAX)
        message = "too many subjects of JWTs are limited at this moment"
        return RequestError(ErrorCode.RATE_LIMITED, message, retry_after_s=_ROOM_RETRY_S)

    def _refusal(
        self, principal: Principal, account: _Account, now_s: float
    ) -> RequestError | None:
        limits = account.limits
        concurrent_max = limits.concurrent_requests
        if concurrent_max is not None and account.open >= concurrent_max:
            what, allowed, wait_s = "concurrent_requests", concurrent_max, _PLACE_RETRY_S
        elif account.requests is not None and account.requests.wait_s(now_s) > 0:
            what, allowed = "requests_per_minute", account.requests.per_minute
            wait_s = account.requests.wait_s(now_s)
        elif account.tokens is not None and account.tokens.wait_s(now_s) > 0:
            what, allowed = "tokens_per_minute", account.tokens.per_minute
            wait_s = account.tokens.wait_s(now_s)
        else:
            return None
        self._tell(principal, account, what, allowed, now_s)
        words = what.replace("_", " ")
        whose = "this key's" if principal.is_key else "this subject's"
        return RequestError(
            ErrorCode.RATE_LIMITED,
            f"{whose} limit of {allowed} {words} is reached",
            retry_after_s=wait_s,
        )

    def _tell(
        self, principal: Principal, account: _Account, what: str, allowed: int, now_s: float
    ) -> None:
        if self._on_exceeded is not None and now_s >= account.told_s.get(what, now_s):
            account.told_s[what] = now_s + TELL_EVERY_S
            self._on_exceeded(principal, what, allowed)


def _told(account: _Account, now_s: float) -> Headers:
    """What is left, in the headers that OpenAI's API has for it."""
    headers: Headers = []
    for kind, bucket in ((b"requests", account.requests), (b"tokens", account.tokens)):
        if bucket is not None:
            headers += [
                (_HEADERS + b"limit-" + kind, b"%d" % bucket.per_minute),
                (_HEADERS + b"remaining-" + kind, b"%d" % bucket.left(now_s)),
                (_HEADERS + b"reset-" + kind, _duration(bucket.reset_s(now_s))),
            ]
    return headers


def _duration(seconds: float) -> bytes:
    """As OpenAI's API spells it: ``17ms``, ``1.5s``, ``6m0s``."""
    if seconds < 1:
        return b"%dms" % round(seconds * 1000)
    minutes, rest = divmod(round(seconds, 1), 60)
    spelled = f"{rest:.1f}".removesuffix(".0")
    return f"{minutes:.0f}m{spelled}s".encode() if minutes else f"{spelled}s".encode()
