"""Listening sockets: bound to what the operator named, and set up for what we serve."""

import contextlib
import ctypes
import errno
import socket
import struct
from typing import Final

from rbee.errors import BindError

# A peer that was cut off without a word is dropped after this long: with data on its way to it,
# or, by probes, without.
_USER_TIMEOUT_MS: Final = 20_000
_KEEP_IDLE_S: Final = 30
_KEEP_INTERVAL_S: Final = 10

# What the kernel holds unsent for one client. A stalled client shows soon, and is cheap.
_NOT_SENT_BYTES: Final = 64 * 1024

# Connections inherit these from the listener: no call per connection.
_TCP_OPTIONS: Final = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS),
    (socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _NOT_SENT_BYTES),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEP_IDLE_S),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEP_INTERVAL_S),
)

# linux/filter.h: a program of one instruction (return 0) by which a socket takes no packet.
_SO_ATTACH_FILTER: Final = 26
_DROP_ALL: Final = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0))
_DROP_ALL_PROGRAM: Final = struct.pack("@HP", 1, ctypes.addressof(_DROP_ALL))

_Address = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]

# One family of a name may be missing on a machine; the others then serve it.
_MISSING_FAMILY: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def bind_sockets(host: str, port: int, backlog: int) -> list[socket.socket]:
    """Listen on every address that ``host`` has.

    Args:
      host: an IPv4 or IPv6 literal, with or without brackets, or a name.
      port: 0 takes a free one, the same for all addresses.

    Raises:
      BindError: the name is unknown, or an address cannot be had.
    """
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, address in _addresses(host, port):
            taken = sockets[0].getsockname()[1] if sockets and not port else port
            try:
                sockets.append(_listen(family, (address[0], taken, *address[2:]), backlog))
            except OSError as error:
                if error.errno not in _MISSING_FAMILY:
                    raise
                missing = error
        if missing is not None and not sockets:
            raise missing
    except OSError as error:
        for each in sockets:
            each.close()
        raise BindError(f"cannot serve on {_spell(host, port)}: {_reason(error)}") from error
    return sockets


def tune(listener: socket.socket) -> None:
    """Set what each connection accepted from ``listener`` shall inherit."""
    listener.setblocking(False)
    if listener.family in (socket.AF_INET, socket.AF_INET6):
        for level, option, value in _TCP_OPTIONS:
            listener.setsockopt(level, option, value)


def stop_connecting(listener: socket.socket) -> None:
    """Let nobody connect any more, and keep those who have.

    Who connects between the last accept and the close would be reset. From now on the kernel does
    not hear them; they try again a second later, and learn that nobody listens.
    """
    if listener.family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):  # where there are no filters, the moment stays
            listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, _DROP_ALL_PROGRAM)


def _addresses(host: str, port: int) -> list[tuple[int, _Address]]:
    name = host.removeprefix("[").removesuffix("]")
    if not name:
        raise BindError("no address to serve on was named; 127.0.0.1 and [::1] are this machine")
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _listen(family: int, address: _Address, backlog: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(backlog)
        tune(sock)
    except BaseException:
        sock.close()
        raise
    return sock


def _spell(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def _reason(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "another program listens there; stop it or name another port"
        case errno.EACCES:
            return "this user may not; ports below 1024 need a privilege"
        case errno.EADDRNOTAVAIL:
            return "this machine has no such address"
        case _ if isinstance(error, socket.gaierror):
            return "this name has no address"
        case _:
            return error.strerror or type(error).__name__
