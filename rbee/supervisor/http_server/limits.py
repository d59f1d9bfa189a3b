"""What one client may take from the server, and for how long."""

import resource
from dataclasses import dataclass
from typing import Final

# Descriptors that connections leave to the rest of the supervisor: links, pipes, files, pidfds,
# and 256 for local clients.
DESCRIPTORS_KEPT: Final = 512

# The cap where the operating system knows no limit on descriptors.
CONNECTIONS_MAX: Final = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """Limits of the HTTP server. Those on bodies and on an answer's duration are the app's."""

    connections_max: int | None = None  # None: what the limit on descriptors leaves
    backlog: int = 2048  # connections that wait to be accepted; the kernel's somaxconn also counts
    headers_timeout_s: float = 10.0  # for a request's head, from connect or from its first byte
    keep_alive_s: float = 75.0  # between requests
    send_deadline_s: float = 5.0  # without any progress in sending
    linger_s: float = 1.0  # a client may go on talking after our last word
    header_count_max: int = 100
    header_bytes_max: int = 16 * 1024  # of the whole head
    target_bytes_max: int = 8192
    unread_bytes_max: int = 256 * 1024  # of a body, received and not yet read by the app
    parked_bytes_max: int = 256 * 1024  # of a stream, written and not yet taken by the kernel


def connections_max(limits: HttpLimits) -> int:
    """How many connections may be open at once."""
    if limits.connections_max is not None:
        return limits.connections_max
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return CONNECTIONS_MAX
    return max(descriptors - DESCRIPTORS_KEPT, descriptors // 2)
