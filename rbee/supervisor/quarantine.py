"""Which request crashes workers: suspects, how the guilty one is found, and its quarantine. Pure.

A request is known here by its fingerprint, so one that comes again is known again.

Rule 1: what was in work at a crash is suspected of it. A suspect works apart, alone on its
        worker, until it has brought enough tokens or has ended there: then it is cleared. Of
        more than `HEARINGS_MAX` some are heard together; if they crash, they are fewer.
Rule 2: a suspect that was in work alone at another crash is guilty of that one, and of all that
        it is suspected of. The others are cleared of those, and it is in quarantine.
Rule 3: who is suspected of more crashes works apart for longer, from the third on to its end:
        no request is in work at more than four before it is found, most at two.
"""

import enum
import hashlib
import hmac
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from rbee.ask import Ask

# A suspect is heard for so many tokens more than it had brought when the worker crashed: what
# failed once at a certain place fails there again, and some tokens are lost on their way.
TOKENS_MORE: Final = 16

# What all suspects of a crash are heard for, together; then four times as much. Others wait
# meanwhile: at 50 tokens/s these are 20 s.
TOKENS_APART: Final = 1024
TOKENS_APART_GROWTH: Final = 4

# In so many groups the suspects of one crash are heard: each alone, as long as they are no more.
HEARINGS_MAX: Final = 32

# From so many crashes on a suspect works apart to its end.
CRASHES_APART: Final = 3

# How long a suspicion lasts, and how many there may be; of more the oldest are dropped.
SUSPECT_S: Final = 600.0
FINGERPRINTS_MAX: Final = 4096

_encoder: Final = msgspec.msgpack.Encoder()


class Standing(enum.Enum):
    """What is held against a request."""

    CLEAR = "clear"
    SUSPECT = "suspect"  # works apart
    QUARANTINED = "quarantined"  # is not worked on


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known after a crash."""

    guilty: bytes | None = None  # fingerprint
    explained: tuple[str, ...] = ()  # the slots of the crashes that it is guilty of, one for each


@dataclass(slots=True)
class _Suspect:
    until_s: float
    crashes: dict[int, str] = field(default_factory=dict)  # not explained: number -> slot
    heard_with: tuple[int, int] = (0, 1)  # the last crash, and how many at a time
    tokens_apart: float = 0.0
    cleared_to: int = 0  # of the crashes up to that number

    @property
    def is_cleared(self) -> bool:
        return max(self.crashes) <= self.cleared_to

    def clear(self) -> None:
        self.cleared_to = max(self.crashes)


class Quarantine:
    """All that is held against requests.

    Args:
      secret: without it a fingerprint tells nothing about its request.
      quarantine_s: how long a guilty request is not worked on.
    """

    def __init__(self, secret: bytes, quarantine_s: float) -> None:
        self._secret = secret
        self._quarantine_s = quarantine_s
        self._suspects: dict[bytes, _Suspect] = {}
        self._barred_until_s: dict[bytes, float] = {}
        self._numbers = itertools.count(1)
        self._until_s = -math.inf  # when the last of all that is over

    def is_empty(self, now_s: float) -> bool:
        """Whether nothing is held against anybody."""
        return now_s >= self._until_s

    def fingerprint(self, ask: Ask) -> bytes:
        """What a request is known by. Costs about 2 µs, and 0.6 µs more for each kB of prompt."""
        bias = dict(sorted(ask.sampling.logit_bias.items()))  # its order is the client's
        sampling = msgspec.structs.replace(ask.sampling, logit_bias=bias)
        canonical = _encoder.encode(msgspec.structs.replace(ask, sampling=sampling))
        return hmac.digest(self._secret, canonical, hashlib.sha256)

    def standing(self, fingerprint: bytes, now_s: float) -> Standing:
        if self._barred_until_s.get(fingerprint, -math.inf) > now_s:
            return Standing.QUARANTINED
        suspect = self._suspects.get(fingerprint)
        if suspect is None or suspect.is_cleared or suspect.until_s <= now_s:
            return Standing.CLEAR
        return Standing.SUSPECT

    def crashed(self, slot: str, in_work: Mapping[bytes, int], now_s: float) -> Verdict:
        """A worker crashed, and a request may be why.

        Args:
          in_work: fingerprint -> tokens that this worker had brought for it.
        """
        self._forget(now_s)
        if len(in_work) == 1:
            [alone] = in_work
            if self.standing(alone, now_s) is Standing.SUSPECT:
                return self._convict(alone, slot, now_s)
        number = next(self._numbers)
        self._until_s = max(self._until_s, now_s + SUSPECT_S)
        for suspect_id, tokens in in_work.items():
            suspect = self._suspects.pop(suspect_id, None) or _Suspect(now_s)
            self._suspects[suspect_id] = suspect  # the newest are at the end
            suspect.until_s = now_s + SUSPECT_S
            suspect.crashes[number] = slot
            suspect.heard_with = (number, math.ceil(len(in_work) / HEARINGS_MAX))
            suspect.tokens_apart = _tokens_apart(len(suspect.crashes), tokens, len(in_work))
        _drop_oldest(self._suspects)
        return Verdict()

    def heard_with(self, fingerprint: bytes) -> tuple[int, int]:
        """Of which crash's suspects it is, and how many of them may be in work together."""
        suspect = self._suspects.get(fingerprint)
        return (0, 1) if suspect is None else suspect.heard_with

    def brought(self, fingerprint: bytes, tokens: int) -> bool:
        """A suspect has brought so many tokens apart.

        Returns:
          Whether it is cleared.
        """
        suspect = self._suspects.get(fingerprint)
        if suspect is None:
            return True
        if tokens >= suspect.tokens_apart:
            suspect.clear()
        return suspect.is_cleared

    def ended(self, fingerprint: bytes) -> None:
        """A suspect has ended apart, and its worker has not."""
        suspect = self._suspects.get(fingerprint)
        if suspect is not None:
            suspect.clear()

    def _convict(self, guilty: bytes, slot: str, now_s: float) -> Verdict:
        crashes = self._suspects.pop(guilty).crashes
        for other_id, other in list(self._suspects.items()):
            other.crashes = {
                number: where for number, where in other.crashes.items() if number not in crashes
            }
            if not other.crashes:
                del self._suspects[other_id]
        if self._quarantine_s > 0:
            self._barred_until_s[guilty] = now_s + self._quarantine_s
            self._until_s = max(self._until_s, now_s + self._quarantine_s)
            _drop_oldest(self._barred_until_s)
        return Verdict(guilty, (*crashes.values(), slot))

    def _forget(self, now_s: float) -> None:
        self._suspects = {
            each: suspect for each, suspect in self._suspects.items() if suspect.until_s > now_s
        }
        self._barred_until_s = {
            each: until_s for each, until_s in self._barred_until_s.items() if until_s > now_s
        }


def _tokens_apart(crashes: int, tokens: int, suspects: int) -> float:
    if crashes >= CRASHES_APART:
        return math.inf
    all_together: int = TOKENS_APART * TOKENS_APART_GROWTH ** (crashes - 1)
    return max(TOKENS_MORE, min(tokens + TOKENS_MORE, all_together // min(suspects, HEARINGS_MAX)))


def _drop_oldest(records: dict[bytes, _Suspect] | dict[bytes, float]) -> None:
    while len(records) > FINGERPRINTS_MAX:
        del records[next(iter(records))]
