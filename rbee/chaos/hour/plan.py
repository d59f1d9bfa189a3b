"""Which fault strikes when: drawn before anything begins. Pure."""

import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Orders:
    """What is asked for.

    Args:
      kinds: names of faults; at least one.
    """

    minutes: float
    every_s: float
    seed: int
    kinds: Sequence[str]

    @property
    def duration_s(self) -> float:
        return self.minutes * 60


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault; all that is random in it comes from ``seed``."""

    at_s: float  # since the beginning
    kind: str
    seed: str


def plan(orders: Orders) -> list[Strike]:
    """One strike in each interval of ``every_s``, at a random moment of it.

    All kinds come once before any comes again, in another order each time.
    """
    chance = random.Random(f"hour {orders.seed}")  # noqa: S311  # no secret hangs on it
    strikes: list[Strike] = []
    bag: list[str] = []
    for number in range(max(1, round(orders.duration_s / orders.every_s))):
        if not bag:
            bag = chance.sample(orders.kinds, len(orders.kinds))
        at_s = (number + chance.random()) * orders.every_s
        strikes.append(Strike(at_s, bag.pop(), f"hour {orders.seed} {number}"))
    return strikes
