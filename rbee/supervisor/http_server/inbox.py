"""What an app receives of one request: the parts of its body, then the disconnect.

Rule 1: a client that sends faster than the app reads is made to wait.
Rule 2: a disconnect never waits, and is told as often as the app asks.
Rule 3: where the client is there, and the rest of its body cannot be had, the disconnect says why
        under `FAULT`: an app may answer that.
"""

from collections import deque
from typing import Final, cast

import trio
from hypercorn.typing import ASGIReceiveEvent

from rbee.errors import RequestError

FAULT: Final = "rbee.fault"  # the member of a disconnect, an extension of ASGI

# Chunks of one byte cost as much to carry as chunks of a kilobyte.
_MESSAGES_MAX: Final = 16


class Inbox:
    """Filled by the connection's reader, emptied by the app."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._messages: deque[ASGIReceiveEvent] = deque()
        self._has_hung_up = False
        self._fault: RequestError | None = None
        self._arrived = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()

    async def put(self, message: ASGIReceiveEvent) -> None:
        """Add a part of the body; wait while too much of it is unread."""
        if self._has_hung_up:
            return
        self._messages.append(message)
        self._bytes += _size(message)
        self._arrived.unpark_all()
        while self._is_full():
            await self._room.park()

    def hang_up(self) -> None:
        """Nothing more comes: the client is gone, or the answer is complete."""
        self._has_hung_up = True
        self._arrived.unpark_all()
        self._room.unpark_all()

    def fail(self, fault: RequestError) -> None:
        """No more of the body comes, and the client is to be told why."""
        self._fault = fault
        self.hang_up()

    async def receive(self) -> ASGIReceiveEvent:
        """ASGI's `receive`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._messages:
            if self._has_hung_up:
                await trio.lowlevel.checkpoint()  # an app that asks in a loop stops nobody
                return self._disconnect()
            await self._arrived.park()
        message = self._messages.popleft()
        self._bytes -= _size(message)
        self._room.unpark_all()
        return message

    def _disconnect(self) -> ASGIReceiveEvent:
        fault = {} if self._fault is None else {FAULT: self._fault}
        return cast(ASGIReceiveEvent, {"type": "http.disconnect", **fault})

    def _is_full(self) -> bool:
        return not self._has_hung_up and (
            self._bytes > self._bytes_max or len(self._messages) > _MESSAGES_MAX
        )


def _size(message: ASGIReceiveEvent) -> int:
    return len(message["body"]) if message["type"] == "http.request" else 0
