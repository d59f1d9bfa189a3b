"""How often somebody may fail to come in before they must wait. Pure: the time is an argument.

Each address, and each id of a key, has a level that rises by one with each failure and sinks
with time. At its height nothing more is looked at.

Rule 1: only failures that cost work (argon2) count. Who comes with a key that is known to be
        good is never asked.
Rule 2: the tables are bounded: who failed longest ago is forgotten first. What is forgotten
        may fail again, one at a time: the verifier has one thread.
"""

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from rbee.config import AccessConfig

ENTRIES_MAX: Final = 4096  # of each table

# Of IPv6 one customer has a network of this size, and may use every address in it.
_IPV6_PREFIX: Final = 64


@dataclass(frozen=True, slots=True)
class ThrottleLimits:
    """How much is too much; `AccessConfig` has the same."""

    address_failures_max: int = 10
    address_forgiven_per_s: float = 0.5
    # Ids are public: whoever knows one must not be able to keep its owner out for long.
    id_failures_max: int = 20
    id_forgiven_per_s: float = 1.0

    @classmethod
    def of(cls, config: AccessConfig) -> "ThrottleLimits":
        return cls(
            config.address_failures_max, config.address_forgiven_per_s,
            config.id_failures_max, config.id_forgiven_per_s,
        )  # fmt: skip


class Throttle:
    """Failures of the recent past, by address and by id."""

    def __init__(self, limits: ThrottleLimits) -> None:
        self._addresses = _Levels(limits.address_failures_max, limits.address_forgiven_per_s)
        self._ids = _Levels(limits.id_failures_max, limits.id_forgiven_per_s)

    def wait_s(self, address: str, key_id: str, now_s: float) -> float:
        """How long to wait before another try; 0: go on."""
        return max(
            self._addresses.wait_s(network_of(address), now_s), self._ids.wait_s(key_id, now_s)
        )

    def note_failure(self, address: str, key_id: str, now_s: float) -> None:
        self._addresses.rise(network_of(address), now_s)
        self._ids.rise(key_id, now_s)


class _Levels:
    """Levels by name: each rises by one at a time, and sinks at one pace."""

    def __init__(self, height: int, sinks_per_s: float) -> None:
        self._height = height
        self._sinks_per_s = sinks_per_s
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()  # level, at

    def wait_s(self, name: str, now_s: float) -> float:
        return max(0.0, (self._level(name, now_s) + 1 - self._height) / self._sinks_per_s)

    def rise(self, name: str, now_s: float) -> None:
        level = min(self._level(name, now_s) + 1, float(self._height))
        self._levels[name] = level, now_s
        self._levels.move_to_end(name)
        if len(self._levels) > ENTRIES_MAX:
            self._levels.popitem(last=False)

    def _level(self, name: str, now_s: float) -> float:
        level, at_s = self._levels.get(name, (0.0, now_s))
        return max(0.0, level - (now_s - at_s) * self._sinks_per_s)


def network_of(address: str) -> str:
    """Whose failures count together: an IPv4 address, or the network of an IPv6 one."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address  # a local socket
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, _IPV6_PREFIX), strict=False))
