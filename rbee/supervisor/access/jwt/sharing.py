"""Keeps what was revoked here and what is shared with other boxes the same.

Rule 1: revocations are in the store first. What the server lacks of them is given to it as soon
        as it can be asked, however they came into the store.
Rule 2: while it cannot be asked its last word holds for `BLIND_AFTER_S`; then it is the
        operator's choice whether JWTs are taken (`[jwt] on_redis_failure`).
"""

import time
from collections.abc import Mapping
from typing import Final, Protocol

import trio

from rbee.logs import Log
from rbee.supervisor.access.jwt.revoked import RevokedJwts, SharedUnavailableError
from rbee.threads import thread_refusals

ASK_EVERY_S: Final = 1.0
BLIND_AFTER_S: Final = 10.0

# All of it is read again now and then: who adds to it may have forgotten to raise the number.
READ_ANEW_EVERY_S: Final = 60.0


class Shared(Protocol):
    """What `SharedRevocations` can do. Both raise `SharedUnavailableError`."""

    def read(self, now_s: int, *, anew: bool = False) -> dict[str, int] | None: ...

    def add(self, revoked: Mapping[str, int], now_s: int) -> None: ...


class Sharing:
    """The exchange with a Redis-compatible server."""

    def __init__(
        self, shared: Shared, revoked: RevokedJwts, log: Log, *, fails_closed: bool
    ) -> None:
        self._shared = shared
        self._revoked = revoked
        self._fails_closed = fails_closed
        self._log = log
        self._trouble = ""

    async def run(self) -> None:
        """Exchange until cancelled."""
        limiter = trio.CapacityLimiter(1)
        known_s = trio.current_time()
        anew_s = known_s
        while True:
            now_s = trio.current_time()
            anew = now_s >= anew_s
            try:
                with thread_refusals():
                    found = await trio.to_thread.run_sync(
                        self._exchange, anew, limiter=limiter, abandon_on_cancel=True
                    )
            except (SharedUnavailableError, OSError) as error:
                is_blind = now_s - known_s >= BLIND_AFTER_S
                if is_blind:
                    self._revoked.note_blind()
                self._note_trouble(str(error), is_blind=is_blind)
                anew_s = now_s  # a server that comes back may be another one
            else:
                known_s = now_s
                if anew:
                    anew_s = now_s + READ_ANEW_EVERY_S
                self._note_well()
                self._revoked.replace_shared(found)
            await trio.sleep(ASK_EVERY_S)

    def _exchange(self, anew: bool) -> dict[str, int] | None:
        """In a thread."""
        now_s = int(time.time())
        found = self._shared.read(now_s, anew=anew)
        there = self._revoked.shared if found is None else found
        lacking = {
            jti: expires_s
            for jti, expires_s in self._revoked.own.items()
            if there.get(jti, 0) < expires_s
        }
        if lacking:
            self._shared.add(lacking, now_s)
            found = {**there, **lacking}
        return found

    def _note_trouble(self, problem: str, *, is_blind: bool) -> None:
        if not is_blind:
            effect = f"its last word holds for {BLIND_AFTER_S:g} s"
        elif self._fails_closed:
            effect = "no JWT is taken"
        else:
            effect = "what is revoked elsewhere is not seen"
        if effect != self._trouble:
            self._trouble = effect
            self._log.warning("jwt_redis_unavailable", problem=problem, effect=effect)

    def _note_well(self) -> None:
        if self._trouble:
            self._trouble = ""
            self._log.info("jwt_redis_available")
