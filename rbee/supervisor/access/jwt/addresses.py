"""Where keys may be fetched from: public addresses, and networks that the operator names. Pure.

Rule: an address that holds another within it (IPv6 has four such forms) is as good as that one.
"""

import ipaddress
from collections.abc import Sequence
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# RFC 6052, 2.1: the IPv4 address stands in the last 32 bits.
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_IPV4_MASK: Final = 0xFFFF_FFFF


def parse_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


def may_be_asked(address: str, allowed: Sequence[Network]) -> bool:
    """Whether keys may be fetched from there.

    Args:
      address: as the resolver tells it.
      allowed: networks that need not be public.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False  # with a scope, or no address at all
    inner = _innermost(parsed)
    if any(inner in network for network in allowed):
        return True
    return inner.is_global and not (inner.is_multicast or inner.is_reserved)


def _innermost(address: Address) -> Address:
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & _IPV4_MASK)
    if address.teredo is not None:
        return address.teredo[1]
    return address.ipv4_mapped or address.sixtofour or address
