"""Who hangs up, of the clients of whom nothing is read now.

To trio a socket is readable as long as something is unread. The kernel tells more: one epoll
descriptor looks at all these sockets, and trio waits for that.
"""

import select
import socket
from typing import Final

import trio

# Told once: of the sockets that were told of, none is looked at again.
_HANG_UP_ONCE: Final = select.EPOLLRDHUP | select.EPOLLONESHOT


class HangUps:
    """The clients of one server that are not read. `close` it when nobody waits any more."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._waiting: dict[int, trio.Event] = {}  # by descriptor

    async def run(self) -> None:
        """Tell who waits, until cancelled."""
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            for fd, _ in self._epoll.poll(0):
                self._waiting[fd].set()

    async def wait(self, sock: socket.socket) -> None:
        """Wait until a client ends its side, and leave unread what it has said."""
        fd = sock.fileno()
        has_hung_up = self._waiting[fd] = trio.Event()
        try:
            self._epoll.register(fd, _HANG_UP_ONCE)
            try:
                await has_hung_up.wait()
            finally:
                self._epoll.unregister(fd)
        finally:
            del self._waiting[fd]

    def close(self) -> None:
        self._epoll.close()
