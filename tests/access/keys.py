"""Keys for tests, and an `Access` that knows them: verified by comparing, not by argon2."""

from collections.abc import Iterable
from typing import Any

from rbee.audit import AuditState
from rbee.audit.events import Details, Outcome
from rbee.store import KeyRow
from rbee.supervisor.access import api_key
from rbee.supervisor.access.access import Access
from rbee.supervisor.access.api_key import NewKey, fingerprint, new_key
from rbee.supervisor.access.hashing import NOBODYS_HASH, fits
from rbee.supervisor.access.keyring import Keyring
from rbee.supervisor.access.throttle import ThrottleLimits
from rbee.supervisor.access.verifier import Verifier

NOW_UNIX_S = 1_900_000_000


class Ring:
    """Keys that were made for a test, by what their texts are."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}  # by hash

    def row(self, key: NewKey, **more: Any) -> KeyRow:
        hashed = f"{NOBODYS_HASH[:-8]}{key.id}"
        self._texts[hashed] = key.text
        given: dict[str, Any] = {
            "id": key.id, "hash": hashed, "fingerprint": fingerprint(key.text), "name": "",
            "role": "user", "models": (), "limits": {}, "created_s": NOW_UNIX_S - 1000,
        }  # fmt: skip
        return KeyRow(**{**given, **more})

    def knows_not(self, hashed: str) -> bool:
        """Whether a hash is of a key that was made by the code under test."""
        return hashed not in self._texts and hashed != NOBODYS_HASH

    def fits(self, text: str, hashed: str) -> bool:
        return self._texts.get(hashed) == text


def forged(key_id: str) -> NewKey:
    """A key of that id with another secret, and the checksum that it should have."""
    twin = new_key()
    body = twin.text.replace(twin.id, key_id)[:-6]
    return NewKey(key_id, body + api_key._checksum(body))


class HeardAudit:
    """An audit log that keeps what it was told."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str, Details]] = []

    def record(
        self,
        details: Details,
        *,
        actor: str,
        outcome: Outcome = Outcome.SUCCESS,
        correlation_id: str | None = None,
    ) -> None:
        self.heard.append((actor, outcome.value, details))

    async def record_durably(
        self,
        details: Details,
        *,
        actor: str,
        outcome: Outcome = Outcome.SUCCESS,
        correlation_id: str | None = None,
    ) -> None:
        self.heard.append((actor, outcome.value, details))

    @property
    def state(self) -> AuditState:
        return AuditState("recording", seq=len(self.heard))

    def of(self, event: str) -> list[Any]:
        return [details for _, _, details in self.heard if details.event == event]


class Stand:
    """An `Access`, its parts, and its clocks. Make it inside trio, and run its verifier."""

    def __init__(self, throttle_limits: ThrottleLimits | None = None) -> None:
        self.now_s = 100.0
        self.now_unix_s = float(NOW_UNIX_S)
        self.ring = Ring()
        self.audit = HeardAudit()
        self.keyring = Keyring()
        self.verified: list[str] = []
        self.verifier = Verifier(self._fits)
        self.access = Access(
            self.keyring, self.verifier, clock=lambda: self.now_s,
            unix_clock=lambda: self.now_unix_s, audit=self.audit, throttle_limits=throttle_limits,
        )  # fmt: skip

    def give(self, *more: dict[str, Any]) -> list[NewKey]:
        """Make keys, and put them into the keyring in place of those that were there."""
        keys = [new_key() for _ in more]
        self.keep(self.ring.row(key, **each) for key, each in zip(keys, more, strict=True))
        return keys

    def keep(self, rows: Iterable[KeyRow]) -> None:
        self.keyring.replace(rows)

    def _fits(self, text: str, hashed: str) -> bool:
        self.verified.append(text)
        return self.ring.fits(text, hashed) or (self.ring.knows_not(hashed) and fits(text, hashed))
