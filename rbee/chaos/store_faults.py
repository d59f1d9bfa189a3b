"""Faults of the store of keys, while keys are made and clients ask with one that is good."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

import trio

from rbee.chaos.deeds import Deeds, check_doors_closed
from rbee.chaos.scene import LOOK_EVERY_S, Scene
from rbee.chaos.server import DrillError, Server
from rbee.chaos.server_faults import disk_full

HELD_S: Final = 4.0

# A store that cannot be read any more is seen at the next change at the latest.
SEEN_S: Final = 10.0

_FILE: Final = "rbee.db"


async def fill_disk(scene: Scene) -> None:
    """The disk of the store is full for some seconds, while keys are made."""
    await _make_keys_during(scene, disk_full(scene.server.state_dir))


async def lock(scene: Scene) -> None:
    """Another process holds the store locked for some seconds, while keys are made."""
    await _make_keys_during(scene, _locked(scene.server.state_dir / _FILE))


async def overwrite(scene: Scene) -> None:
    """The files of the store are overwritten with random bytes, while keys are made."""
    deeds, revoked = await _begun(scene)
    for name in (_FILE, f"{_FILE}-wal", f"{_FILE}-shm"):
        path = scene.server.state_dir / name
        with path.open("r+b", buffering=0) as file:
            file.write(os.urandom(path.stat().st_size))
    await deeds.make_until_refused(SEEN_S)
    await scene.server.wait_event("store_unavailable", SEEN_S)
    await _make_for(deeds, HELD_S)
    await check_doors_closed(scene.server, revoked)
    await deeds.check_keys()
    if scene.server.count("store_available"):
        raise DrillError("a store that is broken was told to be well")
    scene.strike()
    deeds.tell()


async def check_knows_no_key(successor: Server) -> None:
    """Raises: DrillError: a key of the store that was set aside is let in, or none at all."""
    await check_doors_closed(successor, successor.key)


async def _make_keys_during(scene: Scene, trouble: AbstractContextManager[None]) -> None:
    """Make keys before, in, and after a trouble that the store gets over."""
    deeds, revoked = await _begun(scene)
    with trouble:
        scene.strike()
        await deeds.make_until_refused(SEEN_S)
        await _make_for(deeds, HELD_S)
        await check_doors_closed(scene.server, revoked)
    scene.strike()
    await _end_well(scene, deeds)


async def _begun(scene: Scene) -> tuple[Deeds, str]:
    """Keys that were made before anything goes wrong, and one that was revoked."""
    deeds = Deeds(scene)
    await deeds.make_until_done()
    revoked = await deeds.revoke()
    await deeds.check_keys()
    await scene.moment()
    return deeds, revoked


async def _make_for(deeds: Deeds, held_s: float) -> None:
    until_s = trio.current_time() + held_s
    while trio.current_time() < until_s:
        await deeds.make()
        await trio.sleep(LOOK_EVERY_S)


async def _end_well(scene: Scene, deeds: Deeds) -> None:
    await deeds.make_until_done()
    await scene.server.wait_event("store_available", SEEN_S)
    if scene.server.count("store_unavailable") != scene.server.count("store_available"):
        raise DrillError("the log does not tell each begin of the trouble, and its end")
    await deeds.check_keys()
    await deeds.check_list()
    deeds.tell()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold it as a command would that stands still in the middle of its work."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=SEEN_S)
    with contextlib.closing(connection):
        connection.execute("BEGIN EXCLUSIVE")
        yield
