"""A keeper with all that it needs, for a store in a folder of the test."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from rbee.store import KeyRow
from rbee.supervisor.access import keeper as keepers
from rbee.supervisor.access.api_key import new_key
from rbee.supervisor.access.keeper import Keeper
from rbee.supervisor.access.keyring import Keyring
from tests.access.keys import HeardAudit, Ring
from tests.api.face import LogLines


class House:
    def __init__(self, path: Path, *, is_required: bool = False) -> None:
        self.path = path
        self.ring = Keyring(is_required=is_required)
        self.log = LogLines()
        self.audit = HeardAudit()
        self.keeper = Keeper(path, self.ring, self.log, self.audit)
        self.keeper.open()

    async def wait(self, condition: Callable[[], bool]) -> None:
        with trio.fail_after(10):
            while not condition():
                await trio.sleep(0.005)


@asynccontextmanager
async def kept(
    path: Path, monkeypatch: pytest.MonkeyPatch, *, is_required: bool = False
) -> AsyncIterator[House]:
    monkeypatch.setattr(keepers, "LOOK_EVERY_S", 0.01)
    house = House(path, is_required=is_required)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.keeper.run)
        yield house
        nursery.cancel_scope.cancel(reason="the test is over")
    house.keeper.close()


def row(**more: object) -> KeyRow:
    return Ring().row(new_key(), **more)
